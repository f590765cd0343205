"""What a review knows, in files of its own folder: the facts, the analysers' reports, what a model said.

A file is there whole or not at all. Nothing here is ever asked for anew: whoever opens the case later finds what the review was judged on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from codespar.agents.evidence import Evidence
from codespar.agents.files import write_whole
from codespar.config import RepositoryConfig
from codespar.domain.base import CodesparError, Value
from codespar.domain.diffs import Diff, parse
from codespar.models.base import Concern, Opinion, Refutation
from codespar.sandbox.base import AnalyserReport


class CaseGone(CodesparError):
    """A file without which nothing can be judged is not there (any more): only a new commit is reviewed from the beginning."""


class CaseFile:
    """The folder of one review. Blocking work is done in threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # the facts

    async def open(self, evidence: Evidence, rules: RepositoryConfig, diff: str, patch: bytes) -> None:
        """Keep what was gathered: the facts, the repository's own rules, the diff as text, the patch for the analysers. What was found before,
        in an attempt that came to no end, was found of other facts, and is let go."""
        files = {
            "evidence.json": _json(evidence),
            "rules.json": _json(rules),
            "diff": diff.encode(errors="surrogateescape"),
            "change.patch": patch,
        }
        await asyncio.to_thread(self._begin, files)

    async def evidence(self) -> Evidence:
        """Raises `CaseGone`, as `rules` and `diff` do."""
        return Evidence.model_validate_json(await self._needed("evidence.json"))

    async def keep_evidence(self, evidence: Evidence) -> None:
        await asyncio.to_thread(self._write, {"evidence.json": _json(evidence)})

    async def rules(self) -> RepositoryConfig:
        return RepositoryConfig.model_validate_json(await self._needed("rules.json"))

    async def diff(self) -> Diff:
        raw = await self._needed("diff")
        return await asyncio.to_thread(parse, raw.decode(errors="surrogateescape"))

    @property
    def patch(self) -> Path:
        return self.folder / "change.patch"

    # what was found

    async def reports(self) -> tuple[AnalyserReport, ...]:
        """Empty where nothing was analysed."""
        raw = await asyncio.to_thread(self._read, "reports.json")
        return tuple(AnalyserReport.model_validate(one) for one in json.loads(raw or b"[]"))

    async def keep_reports(self, reports: Sequence[AnalyserReport]) -> None:
        text = json.dumps([report.wire() for report in reports]).encode()
        await asyncio.to_thread(self._write, {"reports.json": text})

    async def opinions(self) -> tuple[Opinion, ...]:
        """Of the concerns that a model was asked about, in their order."""
        raw = [await asyncio.to_thread(self._read, _opinion(concern)) for concern in Concern]
        return tuple(Opinion.model_validate_json(one) for one in raw if one is not None)

    async def keep_opinion(self, opinion: Opinion) -> None:
        await asyncio.to_thread(self._write, {_opinion(opinion.concern): _json(opinion)})

    async def refutations(self) -> dict[str, Refutation]:
        """By `judgement.refuted_as`."""
        raw = await asyncio.to_thread(self._read, "refutations.json")
        return {key: Refutation.model_validate(one) for key, one in json.loads(raw or b"{}").items()}

    async def keep_refutations(self, known: Mapping[str, Refutation]) -> None:
        text = json.dumps({key: one.wire() for key, one in known.items()}).encode()
        await asyncio.to_thread(self._write, {"refutations.json": text})

    # files

    async def _needed(self, name: str) -> bytes:
        raw = await asyncio.to_thread(self._read, name)
        if raw is None:
            raise CaseGone(f"what {self.folder.name} was judged on is not kept any more: {name} is missing")
        return raw

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _begin(self, files: Mapping[str, bytes]) -> None:
        for name in ("reports.json", "refutations.json", *map(_opinion, Concern)):
            (self.folder / name).unlink(missing_ok=True)
        self._write(files)

    def _write(self, files: Mapping[str, bytes]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(self.folder / name, content)


def _json(value: Value | RepositoryConfig) -> bytes:
    return value.model_dump_json(by_alias=True).encode()


def _opinion(concern: Concern) -> str:
    return f"opinion-{concern}.json"
