"""The published JSON Schemas, made from the values that read the files, so that they cannot differ.

`python -m codespar.config.schema docs` writes them; a test fails while they are out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from codespar.config import RepositoryFile, Settings
from codespar.domain.tasks import task_spec_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def settings_schema() -> dict[str, Any]:
    """The JSON Schema of `codespar.yaml`."""
    return {"$schema": DIALECT} | Settings.model_json_schema(by_alias=False) | {"title": "codespar.yaml"}


def repository_schema() -> dict[str, Any]:
    """The JSON Schema of `.codespar.yaml`."""
    return (
        {"$schema": DIALECT} | RepositoryFile.model_json_schema(by_alias=False) | {"title": ".codespar.yaml"}
    )


def published_schemas() -> dict[str, str]:
    """What stands in `docs/`: file name to content."""
    schemas = {
        "codespar.schema.json": settings_schema(),
        "repository.schema.json": repository_schema(),
        "task-spec.schema.json": {"$schema": DIALECT} | task_spec_schema(),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def main(folder: Path) -> None:
    for name, text in published_schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
