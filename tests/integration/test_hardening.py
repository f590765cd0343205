"""Where somebody pushes against a trust boundary: addresses that look like options, branches that stand in each other's way, changes that were
not read, and hosts that do not answer while people vote."""

from __future__ import annotations

from pathlib import Path

import pytest

from codespar.agents import evidence
from codespar.config.work import ReviewSettings
from codespar.domain.approvals import ApprovalState
from codespar.domain.diffs import parse
from codespar.domain.difftext import numbered
from codespar.domain.reviews import ReviewVerdict
from codespar.forges.base import ForgeUnavailable, RepositoryUnusable
from codespar.forges.local import LocalForge
from codespar.forges.mirror import TooLarge
from support.agency import PEOPLE
from support.repositories import git, repository
from support.reviewing import CODE, Bureau, words

REX = next(one for one in PEOPLE if one.id == "rex")
SMALL = {"shop.py": CODE.replace("cart[3]", "cart[3] + 1")}


@pytest.mark.parametrize("address", ["--upload-pack=touch {} #://x", "-oProxyCommand=x@host:{}"])
async def test_an_address_that_looks_like_an_option_of_git_runs_nothing(tmp_path: Path, address: str) -> None:
    trap = tmp_path / "trap"
    forge = LocalForge(tmp_path / "kept", address.format(trap))
    with pytest.raises(RepositoryUnusable):
        await forge.sync()
    assert not trap.exists()


async def test_a_branch_is_fetched_where_a_branch_that_is_gone_had_its_folder_as_a_name(
    tmp_path: Path,
) -> None:
    remote = repository(tmp_path / "shop.git", {"a.py": "a = 1\n"})
    forge = LocalForge(tmp_path / "kept", str(remote))
    _, tip = await forge.sync()
    git("update-ref", "refs/heads/feature", tip, cwd=remote)
    assert await forge.fetch_branch("feature") == tip
    git("update-ref", "-d", "refs/heads/feature", cwd=remote)
    git("update-ref", "refs/heads/feature/more", tip, cwd=remote)
    assert await forge.fetch_branch("feature/more") == tip
    assert await forge.fetch_branch("feature") is None


def test_what_a_submodule_brings_in_counts_as_unseen() -> None:
    text = (
        "diff --git a/lib b/lib\nindex 1111111..2222222 160000\n--- a/lib\n+++ b/lib\n@@ -1 +1 @@\n"
        f"-Subproject commit {'1' * 40}\n+Subproject commit {'2' * 40}\n"
    )
    shown, left_out = numbered(parse(text), 10_000)
    assert "2" * 40 in shown
    assert left_out == ("lib: a submodule: what its commits bring in is not part of the diff",)


async def test_a_change_that_was_read_against_another_base_is_not_eligible(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        shop.push("soft", {"evil.py": "evil = 1\n"})
        await shop.open({"b.py": "b = 1\n"}, base="soft")
        pull = await shop.forge.fetch_pull(1)
        found, *_ = await evidence.gather(
            shop.reviewer._tools.sources("shop", ()),
            pull,
            shop.clock(),
        )
        aimed = pull.evolve(base_branch="main")
    assert not evidence.facts_of(aimed, found, own=False).on_default_branch


async def test_a_change_whose_diff_was_not_read_is_never_approved_by_itself(tmp_path: Path) -> None:
    settings = ReviewSettings(approve_up_to="medium")
    async with Bureau(tmp_path, autonomy=4, settings=settings) as shop:

        async def too_large(base_commit: str, head: str) -> str:
            raise TooLarge("the change is larger than 64 MiB as a diff")

        await shop.open({"notes.md": "a\n"})
        shop.forge.diff, diff = too_large, shop.forge.diff  # type: ignore[method-assign]
        sources = shop.reviewer._tools.sources("shop", ())
        found, text, *_ = await evidence.gather(sources, await shop.forge.fetch_pull(1), shop.clock())
        shop.forge.diff = diff  # type: ignore[method-assign]
        assert (text, found.touched) == ("", ("notes.md",))
        assert found.brief.left_out == ("notes.md: its diff was not read",)


async def test_a_submodule_bump_is_not_approved_by_itself(tmp_path: Path) -> None:
    async with Bureau(tmp_path) as shop:
        git("checkout", "-q", "-B", "feature", "origin/main", cwd=shop.tree)
        git("update-index", "--add", "--cacheinfo", f"160000,{'2' * 40},lib", cwd=shop.tree)
        git("commit", "-q", "-m", "chore: lib", cwd=shop.tree)
        await shop.open_at(shop.send("feature"))
        record, _ = await shop.reviewed()
    assert record.verdict is ReviewVerdict.COMMENT
    assert "model" in [gate.name for gate in record.gates if not gate.passed]


async def test_a_vote_while_the_host_does_not_answer_voids_nothing(tmp_path: Path) -> None:
    async with Bureau(tmp_path, autonomy=2) as shop:
        await shop.open(SMALL)
        await shop.say("review PR #1")
        await shop.work()
        (asked,) = [
            one
            for one in await shop.store.read(lambda unit: unit.approvals("shop"))
            if one.command is not None and one.command.name == "approve"
        ]
        get_pull = shop.forge.get_pull

        async def away(number: int) -> None:
            raise ForgeUnavailable("the host does not answer")

        shop.forge.get_pull = away  # type: ignore[method-assign,assignment]
        (card,) = await shop.by(REX, f"approve {asked.token}")
        shop.forge.get_pull = get_pull  # type: ignore[method-assign]
        assert "the host does not answer" in words(card)
        kept = await shop.store.read(lambda unit: unit.approval(asked.token))
        assert kept is not None and kept.state is ApprovalState.PENDING
        await shop.by(REX, f"approve {asked.token}")
        kept = await shop.store.read(lambda unit: unit.approval(asked.token))
        assert kept is not None and kept.state is ApprovalState.EXECUTED
