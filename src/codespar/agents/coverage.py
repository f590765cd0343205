"""How much of a change the tests run, by the coverage reports that the builds of its head commit left.

It reads what others made and changes nothing. Nothing that goes wrong here ends a review: the share is not known then, and it is said why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import Any, cast

from codespar.domain import coverage
from codespar.domain.coverage import CoverageError, Lines
from codespar.domain.diffs import Diff
from codespar.domain.issues import one_line
from codespar.forges.base import Artefact, Forge, ForgeError, PullRequest

_MOST_RUNS = 20
_MOST_ARTEFACTS = 20  # a matrix leaves one a job
_SECONDS = 120.0  # for all of it


async def covered(forge: Forge, pull: PullRequest, diff: Diff, pattern: str) -> tuple[float | None, str]:
    """The share (0 to 1) of the changed lines that tests run, of those that the reports know, and what is to be told of it.

    `pattern` is the name of an artefact, or a glob. None where the share is not known; then the text says why, and is empty where no line was
    changed that tests could run. With a share, the text names artefacts that could not be read.
    """
    changed = await asyncio.to_thread(coverage.changed_lines, diff)
    if not changed:
        return None, ""
    commit = pull.head_commit[:12]
    try:
        async with asyncio.timeout(_SECONDS):
            return await _covered(forge, pull.head_commit, changed, pattern)
    except ForgeError as error:
        return None, f"the coverage reports of {commit} were not read: {error}"
    except TimeoutError:
        return None, f"the coverage reports of {commit} were not read: it took more than {_SECONDS:.0f} s"


async def _covered(
    forge: Forge, commit: str, changed: Mapping[str, frozenset[int]], pattern: str
) -> tuple[float | None, str]:
    found, under_way = await _artefacts(forge, commit, pattern)
    none = f"no coverage report was found for {commit[:12]}"
    if not found:
        why = "its checks are under way" if under_way else f"no artefact of its builds is called `{pattern}`"
        return None, f"{none}: {why}"
    tree = await forge.paths(commit)
    parts: list[dict[str, Lines]] = []
    left = len(found) - _MOST_ARTEFACTS
    troubles = [f"{left} artefacts were left out: there are too many"] if left > 0 else []
    for artefact in found[:_MOST_ARTEFACTS]:
        name = one_line(artefact.name)[:100]
        try:
            content = await _content(forge, artefact)
            told = await asyncio.to_thread(_about, content, changed, tree)
        except (ForgeError, CoverageError) as error:
            troubles.append(f"{name} was not read: {error}")
            continue
        parts += told
        if not told:
            troubles.append(f"{name} holds none in a form that is known")
    said = "; ".join(troubles)
    if not parts:
        return None, f"{none}: {said}"
    value = coverage.share(parts).value
    if value is None:
        none = f"the coverage reports of {commit[:12]} know none of the changed lines"
        return None, f"{none}: {said}" if said else none
    return value, f"not all coverage reports were read: {said}" if said else ""


async def _artefacts(forge: Forge, commit: str, pattern: str) -> tuple[list[Artefact], bool]:
    """Those of that name which the commit's runs left and which are still there; and whether one of the runs is under way."""
    runs = await forge.runs(commit=commit, limit=_MOST_RUNS)
    found: dict[str, Artefact] = {}
    for id in dict.fromkeys(run.id for run in runs):
        for artefact in await forge.artefacts(id):
            if fnmatchcase(artefact.name, pattern) and not artefact.expired:
                found[artefact.id] = artefact
    return list(found.values()), any(run.conclusion is None for run in runs)


async def _content(forge: Forge, artefact: Artefact) -> bytes:
    most = coverage.MOST_BYTES
    content = bytearray()
    if artefact.size <= most:
        async with aclosing(cast("Any", forge.artefact(artefact.id))) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > most:
                    break
    if max(artefact.size, len(content)) > most:
        raise CoverageError(f"it has more than {most // 1024**2} MiB")
    return bytes(content)


def _about(content: bytes, changed: Mapping[str, frozenset[int]], tree: list[str]) -> list[dict[str, Lines]]:
    """What each report in an artefact says of the changed lines."""
    names = {path.rpartition("/")[2] for path in changed}
    reports = [coverage.read(file, names) for file in coverage.unpacked(content)]
    return [coverage.about(report, changed, tree) for report in reports if report is not None]
