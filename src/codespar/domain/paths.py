"""Which paths a pattern names, who owns a path, and what a file is for, by its path alone.

Patterns are read as `.gitignore` and CODEOWNERS read them: `*`, `?` and `[…]` stay within one name, `**` spans folders, a pattern with a
slash in front or in its middle is anchored at the top, any other matches at every depth, and one that names a folder names all that is in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

_DOC_ENDINGS = {"md", "mdx", "rst", "adoc", "asciidoc", "markdown", "textile", "pod", "po"}
_DOC_FOLDERS = {"doc", "docs", "documentation", "changelogs", "changelog", "releasenotes"}
_DOC_NAMES = {"license", "licence", "copying", "authors", "changelog", "changes", "readme", "news", "notice"}
_DATA_ENDINGS = {
    "txt",
    "yml",
    "yaml",
    "json",
    "toml",
    "ini",
    "cfg",
    "conf",
    "properties",
    "xml",
    "png",
    "svg",
    "gif",
}
_TEST_FOLDERS = {"test", "tests", "spec", "specs", "__tests__", "e2e", "testdata", "test_data", "fixtures"}
_CONFIG_ENDINGS = {"yml", "yaml", "toml", "ini", "cfg", "conf", "properties", "json", "editorconfig"}
_CONFIG_NAMES = {".gitignore", ".gitattributes", ".dockerignore", ".editorconfig", ".mailmap"}
_LOCKS = [
    "*.lock",
    "*.lockfile",
    "*-lock.json",
    "*-lock.yaml",
    "go.sum",
    "npm-shrinkwrap.json",
    "gradle.lockfile",
    "Package.resolved",
    "pnpm-lock.*",
    "bun.lockb",
]
_MANIFESTS = [
    "package.json",
    "go.mod",
    "Cargo.toml",
    "Gemfile",
    "*.gemspec",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "Pipfile",
    "*requirements*.txt",
    "*requirements*.in",
    "*constraints*.txt",
    "composer.json",
    "mix.exs",
    "Package.swift",
    "libs.versions.toml",
]


class Role(StrEnum):
    """What a file is for."""

    CODE = "code"
    TESTS = "tests"
    DOCS = "docs"
    CONFIG = "config"
    MANIFEST = "manifest"  # names what the project depends on
    LOCK = "lock"  # pins it; a program wrote it


def _name(pattern: str) -> str:
    """The regular expression of a pattern for one name. A `[` that nothing closes stands for itself."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        closing = pattern.find("]", at + 1) if char == "[" else -1
        if char == "*":
            parts.append("[^/]*" if parts[-1:] != ["[^/]*"] else "")
        elif char == "?":
            parts.append("[^/]")
        elif closing > 0:
            body = pattern[at:closing].replace("\\", r"\\").replace("[", r"\[")
            inverted = body[0] in "!^"
            parts.append(f"(?!/)[{'^' if inverted else ''}{body[1:] if inverted else body}]")
            at = closing + 1
        else:
            if char == "\\" and at < len(pattern):
                char, at = pattern[at], at + 1
            parts.append(re.escape(char))
    return "".join(parts)


def _anchored(pattern: str) -> str:
    """The regular expression of a whole path for a pattern with a slash in front or in its middle. One that names nothing (`/`) matches nothing."""
    names = [name for name in pattern.split("/") if name]
    if not names:
        return r"(?!)"
    folders = r"(?:[^/]+/)*"
    parts: list[str] = []
    for name in names[:-1]:
        if name != "**":
            parts.append(_name(name) + "/")
        elif parts[-1:] != [folders]:
            parts.append(folders)
    if names[-1] == "**":
        return "".join(parts) + ".+"
    return "".join(parts) + _name(names[-1]) + ("/.+" if pattern.endswith("/") else "(?:/.+)?")


@lru_cache(maxsize=512)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    anchored: list[str] = []
    names: list[str] = []  # at any depth
    folders: list[str] = []
    for pattern in patterns:
        bare = pattern.rstrip("/")
        try:
            re.compile(_anchored(pattern))
        except re.error as e:
            raise ValueError(f"{pattern!r} is no path pattern: {e}; write it as in .gitignore") from e
        if "/" in bare or not bare:
            anchored.append(_anchored(pattern))
        else:
            (names if bare == pattern else folders).append(".+" if bare == "**" else _name(bare))
    if names or folders:
        either = [f"(?:{'|'.join(names)})(?:/.+)?"] * bool(names) + [f"(?:{'|'.join(folders)})/.+"] * bool(
            folders
        )
        anchored.append(f"(?:[^/]+/)*(?:{'|'.join(either)})")
    return re.compile("|".join(anchored) or r"(?!)", re.DOTALL)  # a name may hold a line feed


def matches(patterns: Sequence[str], path: str) -> bool:
    """Whether at least one of the patterns names the path. Raises `ValueError` for a pattern that cannot be read."""
    return _matcher(tuple(patterns)).fullmatch(path) is not None


def code_owners(text: str, path: str) -> tuple[str, ...]:
    """The owners of a path by a CODEOWNERS file's text. The last line that names the path counts; one without owners means nobody.

    Lines that cannot be read are passed over, as the code hosts do. Sections (`[Name]`, GitLab's) are not known.
    """
    for line in reversed(text.splitlines()):
        pattern, *owners = line.split("#", 1)[0].split() or [""]
        if not pattern or pattern.startswith(("!", "[")):
            continue
        # in CODEOWNERS `docs/*` names the files of that folder alone, not those further down
        shallow = pattern.endswith("/*") and path.count("/") != pattern.strip("/").count("/")
        try:
            if not shallow and matches((pattern,), path):
                return tuple(owners)
        except ValueError:
            continue
    return ()


@lru_cache(maxsize=8192)
def words(path: str) -> str:
    """The path in lower case with one way to part words, so that one pattern fits all: `AuthToken-Store.java` is `auth_token_store.java`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", path)
    return parted.replace("-", "_").lower()


@lru_cache(maxsize=8192)
def role(path: str) -> Role:
    """What a file is for. What is not known by its path is code, so that a doubt never makes a change look harmless."""
    *folders, name = path.split("/")
    stem, _, ending = name.lower().rpartition(".")
    stem = stem or ending
    inside = {folder.lower() for folder in folders}
    if matches(_LOCKS, name):
        return Role.LOCK
    if matches(_MANIFESTS, name):
        return Role.MANIFEST
    parts = [part for part in re.split(r"[._]", words(name.rpartition(".")[0] or name)) if part]
    if len(parts) > 1 and (parts[0] in ("test", "tests") or parts[-1] in ("test", "tests", "spec", "specs")):
        return Role.TESTS
    if inside & _TEST_FOLDERS or name == "conftest.py":
        return Role.TESTS
    data = ending in _DATA_ENDINGS
    if ending in _DOC_ENDINGS or (stem in _DOC_NAMES and (data or ending == stem)):
        return Role.DOCS  # `news.py` is code
    if inside & _DOC_FOLDERS and data:
        return Role.DOCS
    if ending in _CONFIG_ENDINGS or name in _CONFIG_NAMES:
        return Role.CONFIG
    return Role.CODE
