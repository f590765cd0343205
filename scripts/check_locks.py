"""Checks, without the network, that the lock files have what `pyproject.toml` asks for, and no address of an index or host.

Ends with 1 and a line for each fault; `make lock` corrects them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_ADDRESS = re.compile(r"://|^--", re.MULTILINE)


def faults(lock: str, wanted: Iterable[str]) -> Iterator[str]:
    text = (ROOT / lock).read_text()
    if _ADDRESS.search(text):
        yield f"{lock}: holds an address or an option; it must work against any index"
    pins: dict[str, set[str]] = {}
    for name, version in _PIN.findall(text):
        pins.setdefault(canonicalize_name(name), set()).add(version)
    for line in wanted:
        requirement = Requirement(line)
        locked = pins.get(canonicalize_name(requirement.name), set())
        if not any(requirement.specifier.contains(version, prereleases=True) for version in locked):
            yield f"{lock}: has {', '.join(sorted(locked)) or 'nothing'} for {line!r} of pyproject.toml; run: make lock"


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed: list[str] = project["project"]["dependencies"]
    developing: list[str] = project["dependency-groups"]["dev"]
    found = [*faults("requirements.lock", needed), *faults("requirements-dev.lock", [*needed, *developing])]
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
