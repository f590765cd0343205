"""Approvals that must not be given: what a change, a model that is led astray, or a second push could try.

Each begins with what is approved otherwise: a small change at L3, with green checks.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from codespar.agents.reviews import MOST_AGAIN
from codespar.domain.builds import Conclusion, Run
from codespar.domain.happenings import Checked, News, PullAction
from codespar.domain.reviews import Fate, ReviewRecord, ReviewState, ReviewVerdict
from codespar.forges.base import AccessLost, Check, PullRequest
from codespar.sandbox.base import AnalyserReport
from codespar.scripted.reviews import Refuted, Reviewed, finds, found, judges
from support.reviewing import CODE, Bureau, Host, finding

SMALL = CODE.replace("cart[3]", "cart[3] + 1")  # line 14
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n"


def failed(record: ReviewRecord) -> list[str]:
    return [gate.name for gate in record.gates if not gate.passed]


async def pushed(shop: Bureau, text: str) -> tuple[ReviewRecord, PullRequest]:
    shop.push("feature", {"shop.py": text})
    return await green(shop)


async def green(shop: Bureau) -> tuple[ReviewRecord, PullRequest]:
    await shop.forge.fetch_pull(1)  # learns of its new head
    await shop.green()
    return await shop.reviewed()


@pytest.mark.parametrize("rewritten", [False, True], ids=["pushed on top", "history written anew"])
async def test_what_a_model_said_stands_though_it_overlooks_it_after_later_pushes_until_its_lines_change(
    tmp_path: Path, rewritten: bool
) -> None:
    said = finds(found("shop.py", 14, "Adds one cent", severity="high"))
    silent = [Reviewed("correctness", finds(), of=text) for text in ("import math", "import json")]
    async with Bureau(tmp_path, scripts=[*silent, Reviewed("correctness", said)]) as shop:
        one, _ = await shop.reviewed({"shop.py": SMALL})
        assert one.verdict is ReviewVerdict.REQUEST_CHANGES

        if rewritten:
            shop.push("other", {"shop.py": "import math\n" + SMALL})
            shop.send("feature")
            two, _ = await green(shop)
        else:
            two, _ = await pushed(shop, "import math\n" + SMALL)
        assert two.verdict is ReviewVerdict.REQUEST_CHANGES and "findings" in failed(two)
        (stands,) = two.findings
        assert (stands.fate, stands.start_line, stands.end_line) == (Fate.SAID_BEFORE, 15, 15)
        assert stands.fate_reason == f"{one.id} said it, and its lines are as they were"

        three, _ = await pushed(shop, "import json\nimport math\n" + SMALL)
        assert three.verdict is ReviewVerdict.REQUEST_CHANGES
        assert [one.start_line for one in three.findings] == [16] and shop.forge.resolved == []

        four, _ = await pushed(shop, "import json\nimport math\n" + SMALL.replace("+ 1", "+ 0"))
        assert (four.verdict, failed(four), four.findings) == (ReviewVerdict.APPROVE, [], ())
        assert shop.forge.resolved == [(one.findings[0].comment,)]


@pytest.mark.parametrize("now", ["milder", "refuted", "said twice"])
async def test_what_people_were_told_no_model_takes_back_while_its_lines_are_as_they_were(
    tmp_path: Path, now: str
) -> None:
    title, severity = "Adds one cent", "high" if now == "refuted" else "info"
    said = found("shop.py", 15, title, severity=severity, failing_case="the second time")
    later: list[Any] = [Reviewed("correctness", finds(said), of="import math")]
    if now == "said twice":
        later.append(Reviewed("security", finds(said), of="import math"))
    if now == "refuted":
        later.append(Refuted("the second time", judges(True, "The caller takes it off again.")))
    first = Reviewed("correctness", finds(found("shop.py", 14, title, severity="high")))
    async with Bureau(tmp_path, scripts=[*later, first]) as shop:
        one, _ = await shop.reviewed({"shop.py": SMALL})
        assert one.verdict is ReviewVerdict.REQUEST_CHANGES
        two, pull = await pushed(shop, "import math\n" + SMALL)
        assert two.verdict is ReviewVerdict.REQUEST_CHANGES and "findings" in failed(two)
        stands = [each for each in two.findings if each.fate is Fate.SAID_BEFORE]
        assert [(each.severity, each.start_line) for each in stands] == [("high", 15)]
        assert shop.forge.resolved == []
        body = pull.reviews[-1].body
        assert "**Still open from earlier reviews**" in body and "`shop.py` line 15: Adds one cent" in body
        assert "a person who may approve says so: `approve PR #1`" in body


async def test_what_an_analyser_said_stands_where_it_did_not_look_at_the_file_again(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        shop.twin.head = (finding("shop.py", 14, "Off by one", severity="high"),)
        one, _ = await shop.reviewed({"shop.py": SMALL})
        shop.twin.head, shop.twin.unlooked = (), {"shop.py": "lint cannot parse"}
        two, _ = await pushed(shop, "import math (\n" + SMALL)
        assert two.verdict is ReviewVerdict.REQUEST_CHANGES and shop.forge.resolved == []
        assert "analysers did not look at shop.py, which lint cannot parse" in two.problems
        (stands,) = two.findings
        assert stands.fate_reason == f"{one.id} said it, and its file was not looked at this time"
        shop.twin.unlooked = {}
        three, _ = await pushed(shop, "import math\n" + SMALL)
        assert (three.verdict, failed(three)) == (ReviewVerdict.APPROVE, [])
        assert shop.forge.resolved == [(one.findings[0].comment,)]


async def test_a_link_which_no_analyser_follows_is_not_approved(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        (shop.tree / "static").symlink_to("/etc")
        record, pull = await shop.reviewed({"shop.py": SMALL})
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["findings"])
    assert "could not look: analysers at static, a link to something else" in pull.reviews[0].body


@pytest.mark.parametrize("line", [-3, 10**12, 24])
async def test_a_models_finding_that_names_lines_which_the_diff_does_not_show_keeps_the_approval(
    tmp_path: Path, line: int
) -> None:
    said = found("shop.py", line, "Anybody is let in", severity="critical")
    async with Bureau(tmp_path, scripts=[Reviewed("security", finds(said))]) as shop:
        record, _ = await shop.reviewed({"shop.py": SMALL})
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["findings"])
    assert record.findings[0].fate is Fate.UNCHANGED


async def test_a_finding_that_was_refuted_does_not_take_another_along_that_reads_the_same(
    tmp_path: Path,
) -> None:
    scripts: Any = [
        Reviewed(
            "security",
            finds(
                found("a.py", 1, "Anybody is let in", failing_case="the first"),
                found("a.py", 30, "Anybody is let in", failing_case="the second"),
            ),
        ),
        Refuted("the first", judges(True, "Line 1 is never reached.")),
    ]
    async with Bureau(tmp_path, scripts=scripts) as shop:
        record, _ = await shop.reviewed({"a.py": "let_in()\n" + "x = 1\n" * 28 + "let_in()\n"})
    assert record.verdict is ReviewVerdict.COMMENT
    assert {one.start_line: one.fate for one in record.findings} == {1: Fate.REFUTED, 30: Fate.INLINE}


@pytest.mark.parametrize(
    "path", ["a\nb.py", b"src/\xff.py".decode(errors="surrogateescape"), "/".join(["d" * 200] * 6)]
)
async def test_a_file_whose_name_no_analyser_reports_is_not_approved(tmp_path: Path, path: str) -> None:
    async with Bureau(tmp_path) as shop:
        record, pull = await shop.reviewed({path: "a = 1\n"})
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["findings"])
    assert "could not look: analysers at" in pull.reviews[0].body


async def test_lines_that_an_analyser_counts_in_another_way_than_git_are_not_approved(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        shop.twin.head = (finding("shop.py", 114, "Off by one"),)  # it is line 14
        text = CODE.replace("cart[3]", "cart[3] + 1  #" + "\r" * 100)
        record, _ = await shop.reviewed({"shop.py": text})
        assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["findings"])


async def test_a_file_with_carriage_returns_at_the_ends_of_its_lines_is_as_good_as_any(
    tmp_path: Path,
) -> None:
    async with Bureau(tmp_path) as shop:
        record, _ = await shop.reviewed({"a.py": "a = 1\r\nb = 2\r\n"})
        assert (record.verdict, failed(record)) == (ReviewVerdict.APPROVE, [])


@pytest.mark.parametrize(
    ("path", "gates"),
    [
        ("app/migrations/0042_add_ab_test.py", ["policy", "risk"]),
        ("app/migrations/news.py", ["policy", "risk"]),
        ("src/auth/notice.py", ["policy", "risk"]),
        ("infra/a\nb", ["policy", "risk", "findings"]),
    ],
)
async def test_no_name_takes_a_file_out_of_what_is_guarded(
    tmp_path: Path, path: str, gates: list[str]
) -> None:
    async with Bureau(tmp_path) as shop:
        record, _ = await shop.reviewed({path: "a = 1\n"})
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, gates)


async def test_a_pointer_to_content_that_is_not_in_the_diff_is_not_approved(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        record, pull = await shop.reviewed({"tool": POINTER})
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["model"])
    assert "a pointer of Git LFS" in pull.reviews[0].body


async def test_a_level_that_is_lowered_while_it_is_judged_keeps_the_approval(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        await shop.open({"shop.py": SMALL})
        await shop.look()

        async def lower() -> None:
            await shop.store.write(lambda unit: unit.save_project(unit.project("shop").evolve(autonomy=1)))

        async def then() -> None:  # the last look at the pull request before it is posted
            shop.forge.before["fetch_pull"] = lower

        shop.forge.before["checks"] = lambda: _at(shop, then)
        assert await shop.work() == ["posted"]
        record, pull = await shop.latest(), await shop.forge.get_pull(1)
    assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["policy"])
    assert [one.verdict for one in pull.reviews] == ["comment"]


async def _at(shop: Bureau, last: Any, left: int = 1) -> None:
    """At the third question for checks, which is that of the posting."""
    shop.forge.before["checks"] = last if left == 0 else lambda: _at(shop, last, left - 1)


async def test_a_finding_in_a_file_that_is_too_large_to_be_read_again_stands_and_the_review_is_posted(
    tmp_path: Path,
) -> None:
    text = "".join(f"x{n} = {n}  # {'-' * 90}\n" for n in range(11_000))
    said = found("big.py", 3, "Off by one", severity="high")
    async with Bureau(
        tmp_path, files={"big.py": text}, scripts=[Reviewed("correctness", finds(said))]
    ) as shop:
        record, pull = await shop.reviewed({"big.py": text.replace("x2 = 2 ", "x2 = 3 ")})
    assert (record.state, record.verdict) == (ReviewState.POSTED, ReviewVerdict.REQUEST_CHANGES)
    assert [one.line for one in pull.comments] == [3]


async def test_two_commits_pushed_in_turns_without_end_begin_only_so_many_reviews(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        pull = await shop.open({"shop.py": SMALL})
        await shop.look()
        heads = (pull.head_commit, shop.push("feature", {"b.py": "b = 1\n"}))
        for turn in range(2 * MOST_AGAIN + 4):
            await shop.changed(pull, PullAction.UPDATED, head_commit=heads[turn % 2])
            await shop.changed(pull, PullAction.CLOSED, head_commit=heads[turn % 2])
        assert [one.attempt for one in await shop.records()] == [MOST_AGAIN, MOST_AGAIN]
        assert await shop.audit("review.left-out")
        await shop.say("review PR #1")
        assert (await shop.latest()).state is ReviewState.RUNNING


async def test_a_text_that_becomes_code_by_its_new_name_alone_is_not_approved(tmp_path: Path) -> None:
    text = "".join(f"let_in({n})\n" for n in range(20))
    async with Bureau(tmp_path, files={"notes.txt": text}) as shop:
        shop.twin.head = (finding("plugin.py", 3, "Anybody is let in", line_text="let_in(2)"),)
        record, pull = await shop.reviewed({"notes.txt": None, "plugin.py": text})
    assert record.verdict is ReviewVerdict.COMMENT and failed(record) == ["model"]
    assert "did not see plugin.py: renamed" in pull.reviews[0].body


async def test_a_file_that_moves_and_stays_what_it_is_is_approved(tmp_path: Path) -> None:
    text = "".join(f"x{n} = {n}\n" for n in range(20))
    async with Bureau(tmp_path, files={"a.py": text}) as shop:
        record, _ = await shop.reviewed({"a.py": None, "b.py": text})
    assert (record.verdict, failed(record)) == (ReviewVerdict.APPROVE, [])


async def test_where_the_repository_leaves_a_file_out_what_was_said_of_it_holds_nothing_up(
    tmp_path: Path,
) -> None:
    said = Reviewed("correctness", finds(found("shop.py", 14, "Adds one cent")))
    async with Bureau(tmp_path, scripts=[Reviewed("correctness", finds(), of="import math"), said]) as shop:
        await shop.reviewed({"shop.py": SMALL})
        shop.push("main", {".codespar.yaml": "review:\n  ignore: [shop.py]\n"})
        record, _ = await pushed(shop, "import math\n" + SMALL)
    assert [one.fate for one in record.findings] == [Fate.OVERRULED] and failed(record) == []


class Silent(Host):
    """A host that does not tell which checks it requires."""

    async def required_checks(self, branch: str) -> list[str]:
        raise AccessLost(f"the rule sets of {branch} could not be read, which takes the permission X: read")


async def test_where_the_host_does_not_tell_which_checks_it_requires_nothing_is_approved(
    tmp_path: Path,
) -> None:
    async with Bureau(tmp_path) as shop:
        shop.forge.__class__ = Silent
        await shop.open({"shop.py": SMALL})
        await shop.forge.set_check(1, Check(name="slow", passed=None, at=shop.clock()))
        began = shop.clock()
        record, pull = await shop.reviewed()
        assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["checks"])
        assert shop.clock() - began < timedelta(minutes=5)  # no check that ends would help
        body = pull.reviews[-1].body
        assert "it is not known which checks are required" in body and "the permission X: read" in body

        await shop.hear(await ended(shop, pull))
        assert await shop.work() == ["nothing"]
        shop.forge.__class__ = Host
        await shop.hear(await ended(shop, pull))
        assert await shop.work() == ["approved"]


async def ended(shop: Bureau, pull: PullRequest) -> News:
    at = shop.clock.move(seconds=1)
    await shop.forge.set_check(1, Check(name="slow", passed=True, at=at))
    run = Run(
        id=f"r{at.timestamp()}",
        workflow="slow",
        branch="feature",
        commit=pull.head_commit,
        conclusion=Conclusion.SUCCESS,
        started_at=at,
        updated_at=at,
    )
    return News(delivery=run.id, repository="shop", at=at, what=Checked(run=run))


async def test_a_file_that_the_analysers_passed_over_is_named_in_one_line_and_not_approved(
    tmp_path: Path,
) -> None:
    async with Bureau(tmp_path) as shop:
        passed = {f"data-{n}.py": "has 1.4 MiB" for n in range(7)}
        shop.twin.others = tuple(
            AnalyserReport(analyser=name, unlooked=passed) for name in ("ruff", "bandit")
        )
        record, pull = await shop.reviewed({"shop.py": SMALL})
        assert (record.verdict, failed(record)) == (ReviewVerdict.COMMENT, ["findings"])
        body = pull.reviews[-1].body
        assert "could not look: analysers at data-0.py, which has 1.4 MiB" in body
        (line,) = record.problems
        assert line.startswith("analysers did not look at data-0.py, which has 1.4 MiB; data-1.py")
        assert line.endswith("; and 2 more") and body.count(line.partition(",")[2]) == 1
        assert "Could not run" not in body

        shop.push("main", {".codespar.yaml": "review:\n  ignore: ['data-*.py']\n"})
        record, _ = await pushed(shop, "import math\n" + SMALL)
        assert (record.verdict, failed(record), record.problems) == (ReviewVerdict.APPROVE, [], ())
