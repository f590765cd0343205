"""What no single key of a settings file can tell: names that collide, words that are taken, variables that would be secrets.

The rules look at the plain document, before it is a value, so that their problems are told together with all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from codespar.config.yaml import Problem
from codespar.domain.commands import taken

ANALYSERS = ("ruff", "bandit", "semgrep", "detect-secrets")  # the built-in ones
NAMES_OF_OURS = (*ANALYSERS, "advisories", "model")  # by which findings and reports of ours are known
_PROBABLY_SECRET = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)S?($|_)", re.IGNORECASE
)


def check_installation(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Projects and people: each name, alias and id once, and no project called like a command."""
    seen: dict[str, str] = {}
    for place, project in _entries(document, "projects"):
        for path, name in _names(project, ("projects", place)):
            if taken(name):
                yield Problem(path, f"`{name}` means something in commands already; choose another name")
            elif re.search(r"\s", name):
                yield Problem(path, "must be one word; people type it before a command")
            elif name.lower() in seen:
                yield Problem(
                    path, f"`{name}` is the name of {seen[name.lower()]} already; a name leads to one project"
                )
            seen.setdefault(name.lower(), f"projects[{place}]")
    ids: dict[str, int] = {}
    for place, person in _entries(document, "people"):
        name = person.get("id") or str(person.get("name", "")).lower().replace(" ", "-")
        if name in ids:
            told = f"people[{ids[name]}] has the id `{name}` too; give each person an `id` of their own"
            yield Problem(("people", place, "id" if "id" in person else "name"), told)
        ids.setdefault(name, place)


def check_repository(document: Mapping[str, Any]) -> Iterator[Problem]:
    """No variable that is a secret by its name, and no analyser that would speak in the name of ours or of the model."""
    environment = document.get("environment")
    variables = (
        cast("dict[str, Any]", environment).get("variables") if isinstance(environment, dict) else None
    )
    if isinstance(variables, dict):
        for name, value in cast("dict[str, Any]", variables).items():
            if _PROBABLY_SECRET.search(name) and value != "":
                told = "secrets never enter a container; a test that needs some value can set one in the test command"
                yield Problem(("environment", "variables", name), told)
    review = document.get("review")
    for place, analyser in (
        _entries(cast("dict[str, Any]", review), "analysers") if isinstance(review, dict) else ()
    ):
        if (name := analyser.get("name")) in NAMES_OF_OURS:
            told = f"findings of `{name}` are CodeSpar's own; choose another name, such as `own-{name}`"
            told += f" (`review.without: [{name}]` leaves ours out)" if name in ANALYSERS else ""
            yield Problem(("review", "analysers", place, "name"), told)


def _entries(document: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = document.get(key)
    if isinstance(entries, list):
        for place, entry in enumerate(cast("list[Any]", entries)):
            if isinstance(entry, dict):
                yield place, cast("dict[str, Any]", entry)


def _names(
    project: dict[str, Any], path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(project.get("name"), str):
        yield (*path, "name"), project["name"]
    aliases = project.get("alias")
    for place, alias in enumerate(cast("list[Any]", aliases) if isinstance(aliases, list) else []):
        if isinstance(alias, str) and alias.lower() != str(project.get("name")).lower():
            yield (*path, "alias", place), alias
