"""Pull requests that nobody would want to review, and hosts, analysers and models that fail in the middle: nothing is lost, and nothing is
posted twice.

The store, the forge, git and the reviewing model's client are the real ones. The analysers are a twin in memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from codespar.config import ModelSettings
from codespar.domain.happenings import PullAction
from codespar.domain.reviews import Fate, ReviewRecord, ReviewState, ReviewVerdict, Side
from codespar.forges.base import AccessLost, ForgeUnavailable, Gone, MergeMethod, PullRequest
from codespar.models.reviewer import ModelReviewer
from codespar.sandbox.base import AnalyserReport
from codespar.scripted.reviews import Reviewed, finds, found
from support.agency import Clock
from support.modelapi import KEY, ModelApi, Reply, report
from support.repositories import git
from support.reviewing import CODE, Bureau, Once, finding, words

SMALL = {"shop.py": CODE.replace("cart[3]", "cart[3] + 1")}  # line 14


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Bureau]:
    async with Bureau(tmp_path) as made:
        yield made


def failed(record: ReviewRecord) -> list[str]:
    return [gate.name for gate in record.gates if not gate.passed]


def posted(pull: PullRequest) -> str:
    assert len(pull.reviews) == 1, pull.reviews
    return pull.reviews[0].body


# large ones


def worked() -> float:
    """Seconds of processor time that this process and those that it started have used: how busy the machine is does not count."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def fast_commit(shop: Bureau, files: dict[str, bytes]) -> str:
    """A branch `feature` with these files more than `main`, by one call of git."""
    stream = [b"commit refs/heads/feature\ncommitter A <a@example.org> 1790000000 +0000\ndata 3\nbig\n"]
    stream.append(b"from " + git("rev-parse", "main", cwd=shop.remote).encode() + b"\n")
    for name, content in files.items():
        stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(content), content))
    subprocess.run(["git", "fast-import", "--quiet"], input=b"".join(stream), cwd=shop.remote, check=True)
    shop.clock.move(minutes=1)
    return git("rev-parse", "feature", cwd=shop.remote)


async def test_five_thousand_files_are_reviewed_in_bounded_time_and_memory(shop: Bureau) -> None:
    head = fast_commit(shop, {f"src/part{n % 50}/file{n}.py": b"value = %d\n" % n for n in range(5000)})
    await shop.open_at(head)
    await shop.look()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, worked()
    assert await shop.work() == ["posted"]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    record, pull = await shop.latest(), await shop.forge.get_pull(1)
    assert "Changed: 5,000 files, +5,000" in posted(pull)
    assert record.risk is not None and any("5,000 files" in one for one in record.risk.reasons)
    assert record.verdict is ReviewVerdict.COMMENT and {"risk", "model"} <= set(failed(record))
    assert grown < 400 and worked() - began < 60


@pytest.mark.parametrize(("mebibytes", "read"), [(50, True), (70, False)])
async def test_a_huge_diff_is_told_and_nothing_crashes(shop: Bureau, mebibytes: int, read: bool) -> None:
    line = b"x" * 1023 + b"\n"
    head = fast_commit(shop, {"data/big.txt": line * 1024 * mebibytes, "auth/a.py": b"a = 1\n"})
    await shop.open_at(head)
    await shop.look()
    assert await shop.work() == ["posted"]
    record, pull = await shop.latest(), await shop.forge.get_pull(1)
    body = posted(pull)
    assert "no analysers: the change is larger than 32 MiB as a diff" in body
    assert any("authentication" in one for one in record.risk.reasons)  # by the files' names
    assert "model" in failed(record) and record.verdict is ReviewVerdict.COMMENT
    if not read:
        assert "the diff was not read: the change is larger than 64 MiB" in body
        assert record.cut_short and any("not all of the change" in one for one in record.risk.reasons)


# odd ones


async def test_binary_generated_renamed_and_mode_changed_files_are_reviewed(tmp_path: Path) -> None:
    files = {"old.py": CODE, "run.sh": "#!/bin/sh\n", "tool.py": CODE.replace("price", "tool")}
    says = finds(found("moved.py", 2, "Wrong item", severity="low"))
    async with Bureau(tmp_path, files=files, scripts=[Reviewed("correctness", says)]) as shop:
        shop.push("feature", {"logo.png": b"\x89PNG\0\0" * 200, "app.min.js": "a();" * 5000 + "\n"})
        git("mv", "old.py", "moved.py", cwd=shop.tree)
        (shop.tree / "moved.py").write_text(CODE.replace("cart[0]", "cart[-1]"))
        (shop.tree / "run.sh").chmod(0o755)
        git("commit", "-qam", "feat: move", cwd=shop.tree)
        await shop.open_at(shop.send("feature"))
        record, pull = await shop.reviewed()
    assert [(one.path, one.start_line, one.fate) for one in record.findings] == [("moved.py", 2, Fate.INLINE)]
    body = posted(pull)
    assert "(renamed, +1 −1)" in body and "`run.sh` (mode, +0 −0)" in body and "(added" in body
    assert "it did not see" in body and "logo.png" in body  # what a model cannot read keeps it from approving
    assert failed(record)[-1] == "model" or "model" in failed(record)


async def test_a_submodule_that_moves_is_reviewed(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        old, new = "1" * 40, "2" * 40
        shop.push("main", {})
        git("update-index", "--add", "--cacheinfo", f"160000,{old},vendor/lib", cwd=shop.tree)
        git("commit", "-qm", "add it", cwd=shop.tree)
        shop.send("main")
        git("checkout", "-q", "-B", "feature", cwd=shop.tree)
        git("update-index", "--cacheinfo", f"160000,{new},vendor/lib", cwd=shop.tree)
        git("commit", "-qm", "bump it", cwd=shop.tree)
        await shop.open_at(shop.send("feature"))
        _, pull = await shop.reviewed()
        assert "`vendor/lib` (submodule" in posted(pull)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (b"a = 1\r\nb = 2\r\n", b"a = 1\r\nb = 3\r\n", 2),  # CRLF
        (b"a = 1\nb = 2", b"a = 1\nb = 3", 2),  # no newline at the end
        (b"a = 1\n# caf\xe9\n", b"a = 1\n# th\xe9\n", 2),  # not UTF-8
        (b"a = 1\rb = 2\n", b"a = 1\rb = 3\n", 1),  # a lone CR is no end of a line
        (b"", b"a = 1\n", 1),
        ("# ünï\u2028x\n".encode(), "# ünï\u2028y\n".encode(), 1),  # Unicode's line separator neither
    ],
)
async def test_odd_line_ends_and_bytes_keep_comments_on_their_lines(
    tmp_path: Path, before: bytes, after: bytes, line: int
) -> None:
    async with Bureau(tmp_path, scripts=None) as shop:
        shop.push("main", {"odd.py": before})
        shop.twin.head = (finding("odd.py", line, "Odd"),)
        record, pull = await shop.reviewed({"odd.py": after})
    assert [(one.path, one.line) for one in pull.comments] == [("odd.py", line)]
    assert "\r" not in record.findings[0].line_text or before.count(b"\r") == 1


async def test_a_file_whose_name_is_not_utf8_is_reviewed(tmp_path: Path) -> None:
    async with Bureau(tmp_path, scripts=None) as shop:
        shop.push("feature", {"shop.py": SMALL["shop.py"]})
        name = bytes(shop.tree) + b'/caf\xe9 "x"\n.py'
        Path(os.fsdecode(name)).write_bytes(b"a = 1\n")
        git("add", "-A", cwd=shop.tree)
        git("commit", "-qm", "feat: odd name", cwd=shop.tree)
        await shop.open_at(shop.send("feature"))
        record, pull = await shop.reviewed()
        assert record.state is ReviewState.POSTED and "Changed: 2 files" in posted(pull)
        assert len(shop.twin.orders[0].changed) == 2


async def test_an_empty_change_is_not_approved(shop: Bureau) -> None:
    record, pull = await shop.reviewed({})
    assert record.verdict is ReviewVerdict.COMMENT and "protected-paths" in failed(record)
    assert "Changed: 0 files" in posted(pull)
    assert shop.twin.orders == []


async def test_a_deleted_head_branch_is_reviewed_while_its_commit_is_known(shop: Bureau) -> None:
    await shop.open(SMALL)
    await shop.look()
    git("branch", "-D", "feature", cwd=shop.remote)
    assert await shop.work() == ["posted"]


async def test_a_commit_that_is_gone_is_told(shop: Bureau) -> None:
    pull = await shop.open(SMALL)
    await shop.say("review PR #1")
    why = f"the branch {pull.branch} of PR #1 is not on {shop.remote} any more"
    shop.forge.troubles["fetch_pull"] = [Gone(why)]
    assert await shop.work() == ["failed"]
    record = await shop.latest()
    told = (await shop.told(record.thread))[-1]
    assert why in told.text and "Next" in words(told)


async def test_a_base_that_is_not_the_default_branch_is_reviewed_and_not_approved(shop: Bureau) -> None:
    shop.push("release", {"b.py": "b = 1\n"})
    record, pull = await shop.reviewed(SMALL, base="release")
    assert failed(record) == ["eligible", "findings"]
    assert "no analysers: its base is release, not main" in posted(pull)


async def test_a_forks_change_is_reviewed_and_not_approved(shop: Bureau) -> None:
    shop.forge.forks.add(1)
    record, pull = await shop.reviewed(SMALL)
    assert failed(record) == ["eligible"] and "its branch is in a fork" in posted(pull)


async def test_a_force_push_during_the_review_ends_it(shop: Bureau) -> None:
    await shop.open(SMALL)
    await shop.look()

    async def force() -> None:
        git("checkout", "-q", "-B", "feature", "origin/main", cwd=shop.tree)
        (shop.tree / "other.py").write_text("other = 1\n")
        git("add", "-A", cwd=shop.tree)
        git("commit", "-qm", "feat: another", cwd=shop.tree)
        shop.send("feature")

    shop.twin.meanwhile = force  # and nobody told us
    assert await shop.work() == ["superseded"]
    first = await shop.latest()
    assert first.problems and "is at" in first.problems[0]
    shop.twin.meanwhile = None
    await shop.look()
    assert await shop.work() == ["posted"]
    pull = await shop.forge.get_pull(1)
    assert [one.head_commit for one in pull.reviews] == [pull.head_commit]


async def test_a_review_says_nothing_again_after_a_force_push_that_keeps_its_line(shop: Bureau) -> None:
    shop.twin.head = (finding("shop.py", 14, "Off by one", line_text="    return cart[3] + 1"),)
    await shop.reviewed(SMALL)
    git("commit", "-q", "--amend", "-m", "feat: in other words", cwd=shop.tree)
    shop.send("feature")
    shop.clock.move(minutes=1)
    record, pull = await shop.reviewed()
    assert [one.fate for one in record.findings] == [Fate.SAID_BEFORE]
    assert len([one for one in pull.comments if one.path]) == 1 and shop.forge.resolved == []


@pytest.mark.parametrize("how", ["closed", "merged"])
async def test_closed_or_merged_meanwhile_nothing_is_posted(shop: Bureau, how: str) -> None:
    pull = await shop.open(SMALL)
    await shop.look()

    async def end() -> None:
        if how == "closed":
            await shop.forge.close(1, at=shop.clock())
        else:
            await shop.forge.merge(
                1, method=MergeMethod.MERGE, head_commit=pull.head_commit, author="ada", at=shop.clock()
            )

    shop.twin.meanwhile = end
    assert await shop.work() == ["superseded"]
    assert (await shop.latest()).problems == (f"PR #1 is {how}",)
    await shop.look()
    assert (await shop.forge.get_pull(1)).reviews == ()


async def test_reopened_it_is_reviewed_where_its_closing_ended_the_review(shop: Bureau) -> None:
    pull = await shop.open(SMALL)
    await shop.look()
    await shop.changed(pull, PullAction.CLOSED)
    assert (await shop.latest()).state is ReviewState.SUPERSEDED
    await shop.work()
    await shop.changed(pull, PullAction.REOPENED)
    assert await shop.work() == ["posted"] and len(await shop.records()) == 1


async def test_news_that_come_late_do_not_end_the_review_of_the_newest_commit(shop: Bureau) -> None:
    old = await shop.open(SMALL, green=False)
    new = shop.push("feature", {"b.py": "b = 1\n"})
    await shop.changed(old, PullAction.UPDATED, head_commit=new)
    await shop.changed(old, PullAction.UPDATED)  # told after the newer one
    outcomes = [*await shop.work(), *await shop.work()]
    assert outcomes.count("posted") == 1
    pull = await shop.forge.get_pull(1)
    assert [one.head_commit for one in pull.reviews] == [new]


# rules


async def test_rules_that_cannot_be_read_are_told_and_nothing_is_approved(tmp_path: Path) -> None:
    async with Bureau(tmp_path, config="review:\n  protected_path: ['*.py']\n") as shop:
        record, pull = await shop.reviewed(SMALL)
    assert failed(record) == ["risk"]
    assert "the repository's own rules were not used" in posted(pull) and "protected" in posted(pull)


async def test_rules_that_the_change_brings_itself_do_not_count(tmp_path: Path) -> None:
    config = "review:\n  protected_paths: ['shop.py']\n"
    async with Bureau(tmp_path, config=config) as shop:
        shop.twin.head = (finding("shop.py", 14, "Off by one"),)
        lax = "review:\n  ignore: ['*']\n  approve_up_to: medium\n  without: [ruff]\n"
        record, _ = await shop.reviewed({**SMALL, ".codespar.yaml": lax})
        assert [one.fate for one in record.findings] == [Fate.INLINE]
        assert {"policy", "protected-paths", "findings"} <= set(failed(record))
        assert shop.twin.orders[0].without == ()


# analysers


async def test_analysers_that_could_not_run_are_named_and_the_review_goes_on(shop: Bureau) -> None:
    shop.twin.problem = "no Docker Engine answers at unix:///var/run/docker.sock"
    record, pull = await shop.reviewed(SMALL)
    assert "no Docker Engine answers" in posted(pull) and record.analysers == ()


async def test_each_analyser_that_failed_is_named_with_its_reason(shop: Bureau) -> None:
    shop.twin.others = (
        AnalyserReport(analyser="slow", problem="it did not end within 120 s"),
        AnalyserReport(analyser="loud", problem="its output is larger than 16 MiB"),
    )
    record, pull = await shop.reviewed(SMALL)
    assert "slow: it did not end within 120 s" in posted(pull) and "loud: its output" in posted(pull)
    assert record.analysers == ("lint 1.0",)


async def test_an_analyser_that_did_not_run_this_time_resolves_nothing(shop: Bureau) -> None:
    shop.twin.head = (finding("shop.py", 14, "Off by one", line_text="    return cart[3] + 1"),)
    await shop.reviewed(SMALL)
    shop.push("feature", {"b.py": "b = 1\n"})
    shop.twin.problem = "no Docker Engine answers"
    _, pull = await shop.reviewed()
    assert shop.forge.resolved == [] and not any(one.body.startswith("✅") for one in pull.comments)


async def test_an_analyser_that_finds_a_lot_is_kept_whole_and_shown_in_bounds(shop: Bureau) -> None:
    lines = "".join(f"x{n} = {n}\n" for n in range(3000))
    shop.twin.head = tuple(finding("new.py", n, f"Number {n} " + "x" * 200) for n in range(1, 3001))
    began = worked()
    record, pull = await shop.reviewed({"new.py": lines})
    assert len(record.findings) == 3000 and all(one.fate and one.fate_reason for one in record.findings)
    assert len(pull.comments) == 10 and len(posted(pull)) <= 65_536
    assert "findings are not shown here" in posted(pull)
    assert worked() - began < 30


async def test_a_program_of_the_repository_without_its_environment_is_named(tmp_path: Path) -> None:
    config = "review:\n  analysers:\n    - {name: own, command: run-it}\n"
    async with Bureau(tmp_path, config=config) as shop:
        _, pull = await shop.reviewed(SMALL)
        assert "own: the repository's environment could not be built" in posted(pull)
        assert shop.twin.orders[0].analysers == ()


# the model


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ((Reply(status=529, kind="overloaded_error", message="Overloaded"),), ""),
        ((Reply(status=401, kind="authentication_error", message="invalid x-api-key"),), ""),
        ((Reply(cut=True),), ""),
        ((Reply(text="I will not.", stop="refusal"),), "refused to review this"),
        ((Reply(seconds=5),), ""),
        ((report(), Reply(status=500)), ""),
    ],
    ids=["busy", "key", "cut", "refusal", "slow", "fails later"],
)
async def test_a_model_that_does_not_do_its_part_is_told_and_keeps_it_from_being_approved(
    tmp_path: Path, replies: tuple[Reply, ...], said: str
) -> None:
    async with ModelApi(*replies) as api:
        named = ModelSettings(review="anthropic:claude-sonnet-5-5", base_url=api.url, api_key_env="TEST_KEY")
        patience = (
            1.5 if any(reply.seconds for reply in replies) else 60
        )  # the first call loads its client, too
        model = ModelReviewer(named, {"TEST_KEY": KEY}, seconds=patience)
        try:
            async with Bureau(tmp_path, reviewer=model) as shop:
                record, pull = await shop.reviewed(SMALL)
        finally:
            await model.close()
    assert record.cut_short and failed(record) == ["model"] and KEY not in posted(pull)
    assert "The model's review was cut short" in posted(pull) and said in posted(pull)


async def test_a_second_look_that_fails_lets_the_finding_stand(tmp_path: Path) -> None:
    finding_ = {
        "path": "shop.py",
        "start_line": 14,
        "end_line": 14,
        "side": "new",
        "severity": "medium",
        "category": None,
        "title": "Off by one",
        "why": "It adds one.",
        "failing_case": "",
    }
    replies = (report(finding_), report(), report(), report(), Reply(status=500))
    async with ModelApi(*replies) as api:
        named = ModelSettings(review="anthropic:claude-sonnet-5-5", base_url=api.url, api_key_env="TEST_KEY")
        model = ModelReviewer(named, {"TEST_KEY": KEY}, seconds=60)
        try:
            async with Bureau(tmp_path, reviewer=model) as shop:
                record, pull = await shop.reviewed(SMALL)
        finally:
            await model.close()
    assert [one.fate for one in record.findings] == [Fate.INLINE] and len(pull.comments) == 1


# the host


class Waits(Once):
    """Remembers how long was waited."""

    def __init__(self, id: str, clock: Clock, waited: list[float]) -> None:
        super().__init__(id, clock)
        self._waited = waited

    async def sleep(self, seconds: float) -> None:
        self._waited.append(seconds)
        await super().sleep(seconds)


@pytest.mark.parametrize(
    ("where", "lost"),
    [
        ("submit_review", False),
        ("submit_review", True),
        ("resolve", True),
        ("fetch_pull", False),
        ("checks", False),
    ],
)
async def test_a_host_that_asks_for_patience_is_waited_for_and_has_one_review(
    shop: Bureau, where: str, lost: bool
) -> None:
    first = CODE.replace("cart[2]", "cart[2] * 2").replace("cart[3]", "cart[3] + 1")
    shop.twin.head = (
        finding("shop.py", 10, "Too large", line_text="    return cart[2] * 2"),
        finding("shop.py", 14, "Off by one", line_text="    return cart[3] + 1"),
    )
    await shop.reviewed({"shop.py": first})
    shop.push("feature", {"shop.py": first.replace("cart[2] * 2", "cart[2]"), "b.py": "b = 1\n"})
    shop.twin.head = (shop.twin.head[1], finding("b.py", 1, "Odd", line_text="b = 1"))
    await shop.look()
    troubles = shop.forge.lost if lost else shop.forge.troubles
    troubles[where] = [ForgeUnavailable("rate limited", 42.0), ForgeUnavailable("rate limited")]
    waited: list[float] = []
    assert await shop.work(lambda id: Waits(id, shop.clock, waited)) == ["posted"]
    assert waited == [42.0, 60.0]
    pull = await shop.forge.get_pull(1)
    assert len(pull.reviews) == 2
    assert [one.path for one in pull.comments if one.path] == ["shop.py", "shop.py", "b.py"]
    assert [one.body.count("✅ Fixed") for one in pull.comments if "Too large" in one.body] == [1]


async def test_a_host_that_stays_away_is_told_after_a_while(shop: Bureau) -> None:
    await shop.open(SMALL)
    await shop.say("review PR #1")
    shop.forge.troubles["submit_review"] = [ForgeUnavailable("api.example.org does not answer")] * 99
    waited: list[float] = []
    assert await shop.work(lambda id: Waits(id, shop.clock, waited)) == ["failed"]
    assert 1800 < sum(waited) < 7200 and max(waited) <= 900
    record = await shop.latest()
    told = (await shop.told(record.thread))[-1]
    assert "asked for patience for too long: api.example.org" in told.text and "tries again" in words(told)


async def test_a_comment_that_the_host_cannot_hold_on_its_lines_follows_in_words(shop: Bureau) -> None:
    shop.twin.head = (
        finding("shop.py", 14, "Off by one"),
        finding("shop.py", 2, "Vanished"),
    )
    text = CODE.replace("cart[3]", "cart[3] + 1").replace("cart[0]", "cart[0] - 1")
    await shop.open({"shop.py": text})
    await shop.look()
    host = shop.forge

    class Forgetful(type(host)):  # type: ignore[misc]
        """The diff of the host has lines that ours has, but for one."""

        async def submit_review(self, number: int, draft: Any, key: str) -> Any:
            moved = [
                one.evolve(line=9000, start_line=None) if one.line == 2 else one for one in draft.comments
            ]
            return await super().submit_review(number, draft.evolve(comments=tuple(moved)), key)

    host.__class__ = Forgetful
    assert await shop.work() == ["posted"]
    record, pull = await shop.latest(), await shop.forge.get_pull(1)
    fates = {one.title: one.fate for one in record.findings}
    assert fates == {"Off by one": Fate.INLINE, "Vanished": Fate.SUMMARY}
    assert [one.line for one in pull.comments if one.path] == [14]
    (follow_up,) = [one for one in pull.comments if not one.path]
    assert "Vanished" in follow_up.body and "Off by one" not in follow_up.body


async def test_lost_access_is_told_with_what_to_do(shop: Bureau) -> None:
    await shop.open(SMALL)
    await shop.say("review PR #1")
    why = "GitHub refuses the token: give it Pull requests: write"
    shop.forge.troubles["submit_review"] = [AccessLost(why)]
    assert await shop.work() == ["failed"]
    record = await shop.latest()
    told = (await shop.told(record.thread))[-1]
    assert why in told.text and "`review PR #1` tries again" in words(told)
    assert (await shop.forge.get_pull(1)).reviews == ()


async def test_findings_on_removed_lines_and_beyond_the_file_are_kept(tmp_path: Path) -> None:
    says = finds(
        found("shop.py", 14, "The removed line was right", side="old", severity="low"),
        found("shop.py", 9000, "Beyond the end", severity="low"),
        found("nowhere.py", 1, "No such file", severity="low"),
    )
    async with Bureau(tmp_path, scripts=[Reviewed("correctness", says)]) as shop:
        record, pull = await shop.reviewed(SMALL)
    assert {one.title: one.fate for one in record.findings}["The removed line was right"] is Fate.INLINE
    assert [(one.line, one.side) for one in pull.comments] == [(14, Side.OLD)]
