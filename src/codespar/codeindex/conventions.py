"""Which files are tests, and of what, by the names people give them in the languages we know.

Paths in, answers out: it must never look into a file. A convention is a guess, so an answer has a degree.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from codespar.codeindex.extract import parts
from codespar.codeindex.languages import language_of, other_code

# Words of a path at least one of which every test's path has: for asking the full-text index of paths.
TEST_WORDS = ("test", "tests", "spec", "specs", "it", "testing", "unittest", "conftest")
_FOLDER = re.compile(
    r"(?i:(?:.*[-_.])?(?:unit|integration|functional|acceptance|system|e2e)?[-_]?tests?|__tests?__|specs?|e2e|testing|testsuite)|androidTest"
)
_BEFORE = re.compile(r"(?:tests?|spec)(?:[-_.]|$)|Tests?(?=[A-Z])")
_AFTER = re.compile(
    r"[-_.](?:tests?|specs?|unittest|e2e|cy)$|(?<=[a-z0-9])(?:Tests?|Specs?|TestCase|IT)$|^(?:tests?|specs?|conftest)$"
)
_PLAIN_FOLDERS = frozenset(["src", "lib", "source", "app", "main", "unit", "integration", "java", "python", "pkg", "internal", "kotlin"])  # fmt: skip
_UNTELLING = frozenset(["init", "index", "mod", "lib", "main", "package"])
_FAMILIES = {"typescript": "javascript", "tsx": "javascript", "c": "cpp", ".vue": "javascript", ".svelte": "javascript", ".kt": "java", ".scala": "java", ".groovy": "java"}  # fmt: skip


@lru_cache(maxsize=50_000)
def is_test(path: str) -> bool:
    """Whether a path is that of a test, or of what stands among tests: code in a folder or under a name kept for them."""
    name = PurePosixPath(path)
    if language_of(path) is None and not other_code(path):
        return False
    stem = name.stem
    return bool(
        _AFTER.search(stem)
        or _BEFORE.match(stem)
        or any(_FOLDER.fullmatch(folder) for folder in name.parts[:-1])
    )


def subjects(path: str) -> tuple[str, ...]:
    """What a test of this file would be named after, without separators and in lower case, the most telling first."""
    name = PurePosixPath(path)
    own, parent = _joined(name.stem), _joined(name.parent.name)
    if own in _UNTELLING:
        return (parent,) if parent and parent not in _PLAIN_FOLDERS else (own,)
    return (own, parent + own) if parent else (own,)


@lru_cache(maxsize=50_000)
def tested_by(test: str) -> str:
    """What a test's name says it tests; empty when it only says that it is a test."""
    stem = PurePosixPath(test).stem
    before = _BEFORE.match(stem)
    return _joined(_AFTER.sub("", stem[before.end() :] if before else stem))


def belongs(test: str, path: str) -> float:
    """How surely a test is one of the file, from 0 (nothing says so) to 1 (its name and its folder do)."""
    if _family(test) != _family(path):
        return 0.0
    named, wanted = tested_by(test), subjects(path)
    if not named:
        return 0.4 if _folders(test) == _folders(path) else 0.0
    if named in wanted:
        by_name = tested_by(test) != _joined(PurePosixPath(test).stem)  # and not by its folder alone
        return (0.6 if by_name else 0.4) + 0.4 * _closeness(test, path)
    own = wanted[0]
    if len(own) >= 4 and (named.startswith(own) or named.endswith(own)):
        return 0.3 + 0.2 * _closeness(test, path)
    return 0.0


def module_name(path: str) -> str:
    """The word by which other files import a file: its stem, or its folder's name where the stem says nothing."""
    name = PurePosixPath(path)
    return name.parent.name if _joined(name.stem) in _UNTELLING else name.stem


def _joined(name: str) -> str:
    return "".join(parts(name))


def _family(path: str) -> str:
    kind = language_of(path) or PurePosixPath(path).suffix
    return _FAMILIES.get(kind, kind)


@lru_cache(maxsize=50_000)
def _folders(path: str) -> frozenset[str]:
    """The folders that say what a file is about."""
    folders = PurePosixPath(path).parts[:-1]
    return frozenset(
        _joined(folder)
        for folder in folders
        if not _FOLDER.fullmatch(folder) and folder.lower() not in _PLAIN_FOLDERS
    )


def _closeness(test: str, path: str) -> float:
    ours, theirs = _folders(test), _folders(path)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
