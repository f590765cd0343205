"""Checks what can be checked of the documents: links lead somewhere, named make targets exist, decisions are whole and in order.

Ends with 1 and a line for each fault. It reads only this folder, and never the network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "docs/architecture.md")
HEADINGS = ("Context", "Decision", "Consequences", "Alternatives compared")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_TARGET = re.compile(r"\bmake ([a-z]+)\b")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`|^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def broken_links(document: Path, text: str) -> Iterator[str]:
    for target in _LINK.findall(_FENCE.sub("", text)):
        path = target.partition("#")[0]
        if (
            path
            and "://" not in path
            and not path.startswith("mailto:")
            and not (document.parent / path).exists()
        ):
            yield f"links to {target}, which is not there"


def unknown_targets(text: str) -> Iterator[str]:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in _CODE.findall(text):
        for target in set(_TARGET.findall(code)) - known:
            yield f"names `make {target}`, which the Makefile does not have"


def decision_faults() -> Iterator[str]:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for number, record in enumerate(records, start=1):
        name = record.relative_to(ROOT)
        text = record.read_text()
        if not re.fullmatch(rf"{number:04}-[a-z0-9-]+\.md", record.name):
            yield f"{name}: the next decision in order is {number:04}-<title>.md"
        if not re.match(rf"# {number}\. \S", text):
            yield f"{name}: the first line must be `# {number}. <title>`"
        for heading in HEADINGS:
            if f"\n## {heading}\n" not in text:
                yield f"{name}: has no section `## {heading}`"


def faults() -> Iterator[str]:
    for required in REQUIRED:
        if not (ROOT / required).is_file() or not (ROOT / required).read_text().strip():
            yield f"{required}: is missing or empty"
    for document in documents():
        text = document.read_text()
        for fault in (*broken_links(document, text), *unknown_targets(text)):
            yield f"{document.relative_to(ROOT)}: {fault}"
    yield from decision_faults()


def main() -> int:
    found = list(faults())
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    if not found:
        sys.stdout.write(f"documents: {len(documents())} checked, no faults\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
