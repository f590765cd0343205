"""The case file of a review: what was kept is read again as it was, and what was not is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar.agents.casefile import CaseFile, CaseGone
from codespar.agents.evidence import Evidence
from codespar.config import RepositoryConfig
from codespar.domain.reviews import Category, Finding, Severity
from codespar.domain.risk import Change
from codespar.forges.base import PullRequest
from codespar.models.base import Brief, Concern, Opinion, Refutation
from codespar.sandbox.base import AnalyserReport

FOUND = Finding(
    source="lint:E1",
    path="a.py",
    start_line=1,
    end_line=2,
    severity=Severity.LOW,
    category=Category.STYLE,
    title="Odd",
)
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
FACTS = Evidence(
    pull=PullRequest(
        number=1,
        title="feat: prices",
        body="",
        branch="feature",
        base_branch="main",
        head_commit="a" * 40,
        base_commit="b" * 40,
        author="grace",
        created_at=NOW,
        updated_at=NOW,
    ),
    default_branch="main",
    tip="b" * 40,
    brief=Brief(repository="shop", number=1, title="", body="", author="grace", trusted=False, diff=""),
    change=Change(),
)


async def test_what_was_found_is_read_as_it_was_kept(tmp_path: Path) -> None:
    case = CaseFile(tmp_path / "review-abc123")
    opinions = [Opinion(concern=one, findings=(FOUND,)) for one in reversed(Concern)]
    for opinion in opinions:
        await case.keep_opinion(opinion)
    reports = (AnalyserReport(analyser="lint", version="1.0", head=(FOUND,)),)
    await case.keep_reports(reports)
    refuted = {FOUND.fingerprint: Refutation(refuted=True, why="it is even")}
    await case.keep_refutations(refuted)
    again = CaseFile(tmp_path / "review-abc123")
    assert await again.opinions() == tuple(reversed(opinions))
    assert (await again.reports(), await again.refutations()) == (reports, refuted)


async def test_where_nothing_was_found_yet_there_is_nothing(tmp_path: Path) -> None:
    case = CaseFile(tmp_path / "review-abc123")
    assert (await case.opinions(), await case.reports(), await case.refutations()) == ((), (), {})


async def test_a_case_that_is_opened_once_more_holds_nothing_that_was_found_of_older_facts(
    tmp_path: Path,
) -> None:
    case = CaseFile(tmp_path)
    await case.keep_opinion(Opinion(concern=Concern.SECURITY, findings=(FOUND,)))
    await case.keep_reports((AnalyserReport(analyser="lint", head=(FOUND,)),))
    await case.keep_refutations({"a": Refutation(refuted=True, why="it is even")})
    await case.open(FACTS, RepositoryConfig(), "", b"")
    assert (await case.opinions(), await case.reports(), await case.refutations()) == ((), (), {})
    assert await case.evidence() == FACTS


async def test_facts_that_are_missing_are_told_by_name(tmp_path: Path) -> None:
    case = CaseFile(tmp_path / "review-abc123")
    for read, name in ((case.evidence, "evidence.json"), (case.rules, "rules.json"), (case.diff, "diff")):
        with pytest.raises(CaseGone, match=f"review-abc123 was judged on.*{name} is missing"):
            await read()


async def test_a_file_whose_writing_was_cut_short_is_not_there(tmp_path: Path) -> None:
    case = CaseFile(tmp_path)
    (tmp_path / "reports.json.part").write_bytes(b'[{"analyser": "li')
    assert await case.reports() == ()
    await case.keep_reports(())
    assert not (tmp_path / "reports.json.part").exists()
