"""The scripted model as one that reviews: the real reviewing client gets the findings and judgements that a script holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from codespar.config import ModelSettings
from codespar.domain.reviews import Category, Finding, Severity
from codespar.models import reviewprompts
from codespar.models.base import Brief, Concern, ModelBusy
from codespar.models.reviewer import ModelReviewer
from codespar.scripted import reviews
from codespar.scripted.reviews import Refuted, Reviewed, Reviews, finds, found, judges
from codespar.scripted.script import Call, Fault, FaultKind, Library, Script, Turn
from codespar.scripted.server import ScriptedModel

CHANGE = Brief(
    repository="acme/shop",
    number=7,
    title="feat: totals",
    body="Refuted: the rounding",
    author="ada",
    trusted=True,
    diff="diff --git a/cart.py b/cart.py\n       1 +total = sum(prices)\n",
    paths=("cart.py",),
)
OTHER = CHANGE.evolve(number=8, title="feat: coupons")


@asynccontextmanager
async def reviewer(*scripts: Reviewed | Refuted) -> AsyncIterator[tuple[ModelReviewer, ScriptedModel]]:
    async with ScriptedModel(Library({}), reviews=Reviews(scripts)) as model:
        settings = ModelSettings(review="anthropic:claude-sonnet-5-5", base_url=model.url)
        mind = ModelReviewer(settings, {})
        try:
            yield mind, model
        finally:
            await mind.close()


def claim(title: str) -> Finding:
    return Finding(
        source="model:correctness",
        path="cart.py",
        start_line=1,
        end_line=1,
        severity=Severity.HIGH,
        category=Category.CORRECTNESS,
        title=title,
    )


async def test_each_concern_and_each_change_has_its_own_script() -> None:
    async with reviewer(
        Reviewed("correctness", finds(summary="It adds coupons."), of="coupons"),
        Reviewed(
            "correctness", finds(found("cart.py", 1, "Wrong sum", suggestion="total = 0"), summary="Sums.")
        ),
        Reviewed("security", finds(found("cart.py", 1, "Open", end=2, severity="critical"))),
    ) as (mind, _):
        said = {concern: await mind.review(CHANGE, concern, 10) for concern in Concern}
        other = await mind.review(OTHER, Concern.CORRECTNESS, 10)
    correctness, security = said[Concern.CORRECTNESS], said[Concern.SECURITY]
    assert [(one.title, one.suggestion) for one in correctness.findings] == [("Wrong sum", "total = 0")]
    assert correctness.summary == "Sums."
    assert [(one.end_line, one.severity) for one in security.findings] == [(2, Severity.CRITICAL)]
    assert said[Concern.PERFORMANCE].findings == () and said[Concern.PERFORMANCE].cut_short == ""
    assert (other.findings, other.summary) == ((), "It adds coupons.")


async def test_a_finding_is_refuted_by_a_phrase_of_it_alone() -> None:
    async with reviewer(Refuted("rounding", judges(True, "Line 1 rounds."))) as (mind, _):
        rounding = await mind.refute(CHANGE, claim("The rounding is wrong"), "1 total\n")
        sums = await mind.refute(CHANGE, claim("The sum is wrong"), "1 # rounding\n")
    assert (rounding.refuted, rounding.why) == (True, "Line 1 rounds.")
    assert not sums.refuted and "no script" in sums.why


async def test_without_scripts_nothing_is_found() -> None:
    async with ScriptedModel(Library({})) as model:
        settings = ModelSettings(review="anthropic:claude-sonnet-5-5", base_url=model.url)
        mind = ModelReviewer(settings, {})
        opinion = await mind.review(CHANGE, Concern.CORRECTNESS, 10)
        await mind.close()
    assert (opinion.findings, opinion.cut_short) == ((), "") and "no script" in opinion.summary


async def test_a_script_can_go_wrong_first() -> None:
    malformed = Turn("", (Call(reviews.REPORT, {"findings": "many"}),))
    good = finds(found("cart.py", 1, "Wrong sum")).turns[0]
    busy = Turn("", fault=Fault(FaultKind.STATUS, 529, times=1))
    async with reviewer(
        Reviewed("correctness", Script((malformed, good))),
        Reviewed("security", Script((busy,))),
    ) as (mind, model):
        opinion = await mind.review(CHANGE, Concern.CORRECTNESS, 10)
        assert [one.title for one in opinion.findings] == ["Wrong sum"] and len(model.requests) == 2
        with pytest.raises(ModelBusy):
            await mind.review(CHANGE, Concern.SECURITY, 10)


def test_the_names_by_which_a_review_is_known_are_those_that_the_adapter_sends() -> None:
    assert (reviews.REPORT, reviews.JUDGE) == (reviewprompts.REPORT, reviewprompts.JUDGE)
    assert reviewprompts.refute_task(claim("x"), "", "0").startswith(f"Task: {reviews.REFUTE}\n")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [{"name": "Bash"}], "messages": [{"role": "user", "content": "Task: refute\n"}]},
        {"tools": [{"name": "report_findings"}, {"name": "judge_finding"}], "messages": []},
        {"tools": [{"name": "report_findings"}, {"name": "judge_finding"}], "messages": [{"content": []}]},
        {"tools": [{"name": "report_findings"}, {"name": "judge_finding"}], "messages": [{"content": "Hi"}]},
        {"tools": "all", "messages": "none"},
    ],
)
def test_what_is_no_request_to_review_is_left_to_the_other_scripts(body: dict[str, object]) -> None:
    assert reviews.asked_of(body) is None
