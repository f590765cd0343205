"""The packages that a change brings in, by what its lock files and manifests say. Pure.

Only what a hunk itself shows is told: a version whose package's name stands outside of it is left out, and so is what comes from a folder or
a repository instead of a registry. A missing package is a gap in a report; a guessed one would be a false alarm under somebody's change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from codespar.domain.base import Value
from codespar.domain.diffs import Diff, FileDiff, Hunk

MOST_PACKAGES = 500
_LONGEST = 2000  # characters of a line that is read
_NAME = re.compile(r"@?[A-Za-z0-9][\w.~+-]*(?:/[\w.~+-]+)*")
_VERSION = re.compile(r"v?[0-9][0-9A-Za-z.+_!~-]*")


class Package(Value):
    """One version of a package, and the line that brings it in. `ecosystem` is OSV's word for it: PyPI, npm, Go, crates.io, RubyGems,
    Packagist. `version` is as the file has it (Go's with its `v`)."""

    ecosystem: str
    name: str
    version: str
    path: str
    line: int


class _Row(NamedTuple):
    """A line of one side of a hunk."""

    number: int
    text: str
    changed: bool


_Told = tuple[str, str, int]  # name, version, and the place of the row that says the version
_Reader = Callable[
    [Sequence[_Row], str], Iterator[_Told]
]  # of one side of a hunk, and what git says stands above it


def changed_packages(diff: Diff) -> tuple[Package, ...]:
    """The package versions that are there after the change and were not before, in the diff's order; at most `MOST_PACKAGES`. `line` is
    the new side's line with the version, or the one above it where only the name was changed. A lower version than before is one of them: it may bring an old defect back."""
    found: dict[tuple[str, str, str, str], Package] = {}
    for file in diff.files:
        known = _reader(file)
        if known is None:
            continue
        ecosystem, read = known
        before = {(name, version) for hunk in file.hunks for name, version, _ in _read(read, hunk, new=False)}
        for hunk in file.hunks:
            for name, version, row in _read(read, hunk, new=True):
                if (name, version) in before:
                    continue
                key = (file.path, ecosystem, name, version)
                found.setdefault(
                    key,
                    Package(ecosystem=ecosystem, name=name, version=version, path=file.path, line=row.number),
                )
                if len(found) >= MOST_PACKAGES:
                    return tuple(found.values())
    return tuple(found.values())


def _read(read: _Reader, hunk: Hunk, *, new: bool) -> Iterator[tuple[str, str, _Row]]:
    """What one side of a hunk tells: of the new one what was added, of the old one everything."""
    kept = "+" if new else "-"
    rows = [
        _Row(number, line.text.removesuffix("\r") if len(line.text) <= _LONGEST else "", line.kind == kept)
        for line in hunk.walk()
        if line.kind in (" ", kept) and (number := line.new if new else line.old) is not None
    ]
    for name, version, place in read(rows, hunk.section):
        # the name's own line stands just above the version's in most files
        said = next((rows[at] for at in (place, place - 1) if at >= 0 and rows[at].changed), None)
        if (said or not new) and _is_sound(name, version):
            yield name, version, said or rows[place]


def _is_sound(name: str, version: str) -> bool:
    return (
        len(name) <= 200
        and len(version) <= 100
        and _NAME.fullmatch(name) is not None
        and _VERSION.fullmatch(version) is not None
    )


# one reader a kind of file

_PINNED = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*===?\s*(?P<version>[^\s;,#\\*]+)\s*(?:[;#\\].*|--hash.*)?"
)


def _requirements(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for place, row in enumerate(rows):
        if found := _PINNED.fullmatch(row.text):
            yield _python_name(found["name"]), found["version"], place


def _python_name(name: str) -> str:
    """A name as the index has it (PyPA's rule for normalized names)."""
    return re.sub(r"[-_.]+", "-", name).lower()


_ENTRY = re.compile(r"(?P<indent>\s*)(?P<key>\"(?:[^\"\\]|\\.)*\"): \{")
_CLOSED = re.compile(r"(?P<indent>\s*)\}")
_FIELD = re.compile(r"(?P<indent>\s*)\"(?P<name>name|version)\": (?P<value>\"(?:[^\"\\]|\\.)*\"),?")


def _objects(rows: Sequence[_Row]) -> Iterator[tuple[str, dict[str, str], int]]:
    """The objects of indented JSON whose key is shown, with name and version as far as they are shown: key, fields, the version's place."""
    open_: list[tuple[int, str, dict[str, str]]] = []
    for place, row in enumerate(rows):
        if found := _ENTRY.fullmatch(row.text):
            indent = len(found["indent"])
            open_ = [one for one in open_ if one[0] < indent]
            open_.append((indent, _text(found["key"]), {}))
        elif found := _CLOSED.match(row.text):
            open_ = [one for one in open_ if one[0] < len(found["indent"])]
        elif open_ and (found := _FIELD.fullmatch(row.text)):
            indent, key, fields = open_[-1]
            step = len(found["indent"]) - indent
            # its own field, and not that of an object in it whose key is not shown
            if 0 < step <= 4 and found["name"] not in fields:
                fields[found["name"]] = _text(found["value"])
                if found["name"] == "version":
                    yield key, fields, place


def _text(literal: str) -> str:
    """A JSON string; empty where it is none."""
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _pipfile(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for key, fields, place in _objects(rows):
        if fields["version"].startswith("=="):
            yield _python_name(key), fields["version"].removeprefix("=="), place


def _package_lock(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    """`packages` of versions 2 and 3, whose keys are paths. `dependencies` of version 2 says the same again."""
    for key, fields, place in _objects(rows):
        folder, mark, name = key.rpartition("node_modules/")
        if mark and (not folder or folder.endswith("/")):
            yield fields.get("name") or name, fields["version"], place


_LOCK_FIELD = re.compile(r"(?P<name>name|version|source) = (?P<value>.*)")
_LOCK_TEXT = re.compile(r"\"([^\"\\]*)\"")


def _lock_tables(rows: Sequence[_Row]) -> Iterator[tuple[str, str, str | None, int]]:
    """`name` and the `version` below it in TOML, with the line below both, or None where the hunk ends."""
    for place in range(1, len(rows)):
        name, version = _LOCK_FIELD.fullmatch(rows[place - 1].text), _LOCK_FIELD.fullmatch(rows[place].text)
        if not (name and version and name["name"] == "name" and version["name"] == "version"):
            continue
        texts = _LOCK_TEXT.fullmatch(name["value"].strip()), _LOCK_TEXT.fullmatch(version["value"].strip())
        if texts[0] and texts[1]:
            yield texts[0][1], texts[1][1], rows[place + 1].text if place + 1 < len(rows) else None, place


def _poetry(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for name, version, _, place in _lock_tables(rows):
        own = rows[place + 1 :]
        end = next((at for at, row in enumerate(own) if row.text.startswith("[[")), len(own))
        if not any(row.text == "[package.source]" for row in own[:end]):
            yield _python_name(name), version, place


def _uv(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for name, version, below, place in _lock_tables(rows):
        if below is not None and below.startswith("source = { registry = "):
            yield _python_name(name), version, place


def _cargo(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for name, version, below, place in _lock_tables(rows):
        if below is not None and below.startswith(('source = "registry+', 'source = "sparse+')):
            yield name, version, place


_YARN_VERSION = re.compile(r"  version:? \"?(?P<version>[^\s\"]+)\"?")


def _yarn(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for place in range(1, len(rows)):
        above = rows[place - 1].text
        found = _YARN_VERSION.fullmatch(rows[place].text)
        if found is None or above[:1] in ("", " ", "#") or not above.endswith(":"):
            continue
        name = _yarn_name(above[:-1].split(",")[0].strip().strip('"'))
        if name:
            yield name, found["version"], place


def _yarn_name(descriptor: str) -> str:
    """The package of `name@range`, or of `alias@npm:name@range`; empty where it comes from elsewhere than the registry."""
    at = descriptor.find("@", 1)
    if at < 0:
        return ""
    name, wanted = descriptor[:at], descriptor[at + 1 :]
    if wanted.startswith("npm:"):
        real = wanted.removeprefix("npm:")
        aliased = real.find("@", 1)
        return real[:aliased] if aliased > 0 else name
    return "" if ":" in wanted or "/" in wanted else name


_PNPM = re.compile(
    r"  '?/?(?P<name>(?:@[\w.~-]+/)?[\w.~-]+)@(?P<version>[0-9][^\s()'_:]*)(?:[(_][^\s']*)?'?:(?: \{\})?"
)
_PNPM_OLD = re.compile(
    r"  '?/(?P<name>(?:@[\w.~-]+/)?[\w.~-]+)/(?P<version>[0-9][^\s()'_:/]*)(?:[(_][^\s']*)?'?:"
)


def _pnpm(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for place, row in enumerate(rows):
        if found := _PNPM.fullmatch(row.text) or _PNPM_OLD.fullmatch(row.text):
            yield found["name"], found["version"], place


_GO_BLOCK = re.compile(r"(?P<verb>\w+)\s*\(")
_GO_NEEDED = re.compile(
    r"(?P<verb>require\s+|\s+)\"?(?P<name>[\w.~/-]+)\"?\s+(?P<version>v[0-9]\S*)\s*(?://.*)?"
)


def _go_mod(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    opened = _GO_BLOCK.match(section)
    block = opened["verb"] if opened else ""
    for place, row in enumerate(rows):
        if opened := _GO_BLOCK.match(row.text):
            block = opened["verb"]
        elif row.text.startswith(")"):
            block = ""
        elif (found := _GO_NEEDED.fullmatch(row.text)) and "require" in (found["verb"].strip(), block):
            yield found["name"], found["version"], place


_GEM = re.compile(r" {4}(?P<name>[\w.-]+) \((?P<version>[0-9][^()\s-]*)(?:-[^()\s]*)?\)")


def _gemfile(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    part = section.strip()
    for place, row in enumerate(rows):
        if row.text[:1].isalpha():
            part = row.text.strip()
        elif part == "GEM" and (found := _GEM.fullmatch(row.text)):
            yield found["name"], found["version"], place


def _composer(rows: Sequence[_Row], section: str) -> Iterator[_Told]:
    for place in range(1, len(rows)):
        name, version = _FIELD.fullmatch(rows[place - 1].text), _FIELD.fullmatch(rows[place].text)
        if not (name and version) or (name["name"], version["name"]) != ("name", "version"):
            continue
        if name["indent"] == version["indent"] and "/" in (package := _text(name["value"])):
            yield package, _text(version["value"]), place


_READERS: dict[str, tuple[str, _Reader]] = {
    "pipfile.lock": ("PyPI", _pipfile),
    "poetry.lock": ("PyPI", _poetry),
    "uv.lock": ("PyPI", _uv),
    "package-lock.json": ("npm", _package_lock),
    "npm-shrinkwrap.json": ("npm", _package_lock),
    "yarn.lock": ("npm", _yarn),
    "pnpm-lock.yaml": ("npm", _pnpm),
    "go.mod": ("Go", _go_mod),
    "cargo.lock": ("crates.io", _cargo),
    "gemfile.lock": ("RubyGems", _gemfile),
    "gems.locked": ("RubyGems", _gemfile),
    "composer.lock": ("Packagist", _composer),
}
_REQUIREMENTS = re.compile(
    r"(?:.*/)?(?:(?:[^/]*[-_.])?(?:requirements|constraints)(?:[-_.][^/]*)?\.(?:txt|in|pip)|requirements/[^/]*\.(?:txt|in))",
    re.IGNORECASE,
)


def _reader(file: FileDiff) -> tuple[str, _Reader] | None:
    path = file.new_path
    if path is None or file.binary:
        return None
    if known := _READERS.get(path.rpartition("/")[2].lower()):
        return known
    return ("PyPI", _requirements) if len(path) < _LONGEST and _REQUIREMENTS.fullmatch(path) else None
