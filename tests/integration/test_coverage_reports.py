"""The share of the changed lines that tests run, from what the builds of a pull request's head commit left.

The forge, git and GitHub's client are the real ones.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from codespar.agents.coverage import covered
from codespar.domain.builds import Conclusion, Run
from codespar.domain.diffs import Diff, parse
from codespar.forges.base import Artefact, ForgeUnavailable, Gone, PullRequest
from codespar.forges.local import LocalForge
from support.github.api import Says
from support.github.onepull import one_pull
from support.repositories import git, repository
from support.reviewing import CODE, Bureau, Host

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CART = "def total(cart):\n    return sum(cart)\n"
CHANGED = CART + "\n\ndef mean(cart):\n    return sum(cart) / len(cart)\n"  # lines 3 to 6 are new


def lcov(path: str, **hits: int) -> bytes:
    lines = "".join(f"DA:{number.removeprefix('_')},{times}\n" for number, times in hits.items())
    return f"TN:\nSF:{path}\n{lines}end_of_record\n".encode()


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


class Artefacts(LocalForge):
    """The embedded forge, with runs and artefacts as a host with builds of its own has them."""

    def __init__(self, folder: Path, source: str) -> None:
        super().__init__(folder, source)
        self.ended = True
        self.kept: dict[str, tuple[Artefact, bytes | Exception]] = {}
        self.trouble: Exception | None = None
        self.taken: list[str] = []
        self.commits: list[str | None] = []

    def left(
        self, name: str, content: bytes | Exception, *, size: int | None = None, expired: bool = False
    ) -> None:
        id = str(len(self.kept) + 1)
        length = len(content) if isinstance(content, bytes) else 1
        artefact = Artefact(id=id, name=name, size=length if size is None else size, expired=expired)
        self.kept[id] = (artefact, content)

    async def runs(
        self, *, branch: str | None = None, commit: str | None = None, limit: int = 50
    ) -> list[Run]:
        self.commits.append(commit)
        if self.trouble is not None:
            raise self.trouble
        ended = Conclusion.SUCCESS if self.ended else None
        run = Run(
            id="7",
            workflow="ci",
            branch="x",
            commit=commit or "",
            conclusion=ended,
            started_at=AT,
            updated_at=AT,
        )
        return [run, run.evolve(attempt=2)]

    async def artefacts(self, run: str) -> list[Artefact]:
        return [artefact for artefact, _ in self.kept.values()]

    async def artefact(self, id: str) -> AsyncIterator[bytes]:
        self.taken.append(id)
        content = self.kept[id][1]
        if isinstance(content, Exception):
            raise content
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]


class BusyHost(Artefacts, Host):
    """The same for a whole review."""


class Made:
    def __init__(self, forge: Artefacts, pull: PullRequest, diff: Diff) -> None:
        self.forge, self.pull, self.diff = forge, pull, diff

    async def covered(self, pattern: str = "coverage*") -> tuple[float | None, str]:
        return await covered(self.forge, self.pull, self.diff, pattern)


@pytest.fixture
async def made(tmp_path: Path) -> Made:
    bare = repository(tmp_path / "shop.git", {"src/cart.py": CART, "lib/other.py": "x = 1\n"})
    tree = tmp_path / "work"
    git("clone", "-q", str(bare), str(tree), cwd=tmp_path)
    git("checkout", "-q", "-b", "feature", cwd=tree)
    (tree / "src" / "cart.py").write_text(CHANGED)
    git("commit", "-q", "-am", "feat: mean", cwd=tree)
    git("push", "-q", "origin", "feature", cwd=tree)
    (tmp_path / "repos").mkdir()
    forge = Artefacts(tmp_path / "repos" / "shop", str(bare))
    _, tip = await forge.sync()
    head = await forge.fetch_branch("feature")
    assert head is not None
    pull = await forge.open_pull(
        branch="feature",
        commit=head,
        base_branch="main",
        base_commit=tip,
        title="feat: mean",
        body="",
        author="grace",
        at=AT,
    )
    return Made(forge, pull, parse(await forge.diff(tip, head)))


async def test_the_share_is_that_of_changed_lines_in_all_reports_of_the_head_commit(made: Made) -> None:
    path = "/home/runner/work/shop/shop/src/cart.py"
    made.forge.left("coverage-3.11", packed(lcov=lcov(path, _1=1, _2=0, _5=1, _6=0)))
    assert await made.covered() == (0.5, ""), "lines 5 and 6 are new and known, 1 and 2 are not new"
    made.forge.left("coverage-3.12", lcov("src/cart.py", _6=3))
    made.forge.left("logs", b"x")
    assert await made.covered() == (1.0, "")
    assert set(made.forge.commits) == {made.pull.head_commit} and made.forge.taken == ["1", "1", "2"]


async def test_without_a_report_it_is_said_for_which_commit_none_was_found(made: Made) -> None:
    none = f"no coverage report was found for {made.pull.head_commit[:12]}: "
    made.forge.ended = False
    assert await made.covered() == (None, f"{none}its checks are under way")
    made.forge.ended = True
    made.forge.left("coverage", b"x", expired=True)
    assert await made.covered() == (None, f"{none}no artefact of its builds is called `coverage*`")
    made.forge.left("coverage-html", packed(index=b"<html>"))
    assert await made.covered() == (None, f"{none}coverage-html holds none in a form that is known")


async def test_a_broken_report_is_told_and_the_others_count(made: Made) -> None:
    made.forge.left("coverage-1", lcov("src/cart.py", _5=1)[:-3])
    share, why = await made.covered()
    assert (
        share is None and "coverage-1 was not read: it ends in the middle of the record of src/cart.py" in why
    )
    made.forge.left("coverage-2", lcov("src/cart.py", _5=1))
    made.forge.left("coverage-3", Gone("it has expired"))
    made.forge.left("coverage-4", ForgeUnavailable("the connection broke"))
    made.forge.left("coverage-5", b"", size=65 * 1024**2)
    share, why = await made.covered()
    assert share == 1.0 and why.startswith("not all coverage reports were read: coverage-1 was not read")
    assert "coverage-3 was not read: it has expired" in why and "coverage-4 was not read: the conn" in why
    assert "coverage-5 was not read: it has more than 64 MiB" in why and "5" not in made.forge.taken


async def test_an_artefact_that_is_larger_than_it_says_is_not_taken_to_its_end(made: Made) -> None:
    made.forge.left("coverage", b" " * (64 * 1024**2 + 1), size=10)
    share, why = await made.covered()
    assert share is None and "coverage was not read: it has more than 64 MiB" in why


async def test_a_bomb_is_told_in_words(made: Made) -> None:
    made.forge.left("coverage", packed(bomb=b"\0" * (64 * 1024**2 + 1)))
    share, why = await made.covered()
    assert share is None and "unpacks to more than 64 MiB" in why


async def test_a_report_about_other_files_gives_no_share(made: Made) -> None:
    made.forge.left("coverage", lcov("lib/other.py", _1=1))
    share, why = await made.covered()
    assert share is None
    assert why == f"the coverage reports of {made.pull.head_commit[:12]} know none of the changed lines"


async def test_a_host_that_does_not_answer_ends_no_review(made: Made) -> None:
    made.forge.trouble = ForgeUnavailable("not now")
    share, why = await made.covered()
    assert share is None and why.endswith("were not read: not now")


async def test_a_change_that_tests_could_not_run_needs_no_report_and_asks_nobody(made: Made) -> None:
    made.diff = parse("diff --git a/a b/a\nold mode 100644\nnew mode 100755\n")
    assert await made.covered() == (None, "")
    assert made.forge.commits == []


async def test_the_embedded_forge_has_no_artefacts(made: Made) -> None:
    forge = LocalForge(made.forge.folder, made.forge.source)
    share, why = await covered(forge, made.pull, made.diff, "coverage")
    assert share is None and why.startswith("no coverage report was found for")


async def test_all_files_of_a_commit_are_listed_whatever_their_names_are(tmp_path: Path) -> None:
    bare = repository(tmp_path / "shop.git", {"ä b/\n.py": "", "a/b.py": ""}, config=None)
    (tmp_path / "repos").mkdir()
    forge = LocalForge(tmp_path / "repos" / "shop", str(bare))
    _, tip = await forge.sync()
    assert sorted(await forge.paths(tip)) == ["a/b.py", "hello.txt", "ä b/\n.py"]


async def test_an_artefact_of_github_actions_is_unpacked_and_read(tmp_path: Path) -> None:
    async with one_pull(tmp_path) as (github, forge):
        at = "/repos/acme/gateway/actions"
        run = {
            "id": 30,
            "name": "CI",
            "head_branch": "task/one",
            "head_sha": github.head,
            "status": "completed",
            "conclusion": "success",
            "run_started_at": "2026-11-20T10:00:00Z",
        }
        github.lists(f"{at}/runs", [run], "workflow_runs")
        artefacts = [
            {"id": 33, "name": "coverage", "size_in_bytes": 500, "expired": False},
            {"id": 34, "name": "wheel", "size_in_bytes": 500, "expired": False},
        ]
        github.lists(f"{at}/runs/30/artifacts", artefacts, "artifacts")
        github.blobs.content = packed(xml=_cobertura())
        github.on("GET", f"{at}/artifacts/33/zip", Says(status=302, headers={"Location": github.blobs.url}))
        pull = await forge.fetch_pull(1)
        diff = parse(await forge.diff(pull.base_commit, pull.head_commit))
        assert await covered(forge, pull, diff, "coverage") == (0.75, "")
        assert len(github.blobs.requests) == 1
        (asked,) = github.asked("GET", f"{at}/runs")
        assert asked.query["head_sha"] == github.head


@pytest.mark.parametrize(
    ("hits", "level_rises", "said"), [(0, True, "tests run 0% of the changed lines"), (1, False, "")]
)
async def test_a_review_counts_what_tests_do_not_run_and_never_believes_a_change_that_it_is_tested(
    tmp_path: Path, hits: int, level_rises: bool, said: str
) -> None:
    scores = {}
    for setting in ("review: {coverage: coverage}\n", None):
        folder = tmp_path / f"with-{setting is not None}"
        folder.mkdir()
        bureau = Bureau(folder, config=setting)
        host = BusyHost(folder / "repos" / "shop", str(bureau.remote))
        bureau.forge = host
        host.left("coverage", lcov("shop.py", **{f"_{n}": hits for n in range(1, 30)}))
        async with bureau as shop:
            record, _ = await shop.reviewed({"shop.py": CODE.replace("cart[3]", "cart[3] + 1")})
            assert record.risk is not None
            scores[setting] = record.risk.score
            if setting is not None:
                assert not record.problems
                assert any(said in reason for reason in record.risk.reasons)
            else:
                assert host.taken == [], "nobody asked for it"
    with_it, without = scores.values()
    assert (with_it > without) is level_rises and with_it >= without


async def test_a_review_says_which_commit_has_no_report(tmp_path: Path) -> None:
    async with Bureau(tmp_path, config="review: {coverage: 'coverage*'}\n") as shop:
        record, pull = await shop.reviewed({"shop.py": CODE.replace("cart[3]", "cart[3] + 1")})
        (problem,) = record.problems
        assert problem.startswith(f"no coverage report was found for {pull.head_commit[:12]}: ")
        assert "no coverage report was found" in pull.reviews[0].body


def _cobertura() -> bytes:
    lines = "".join(f'<line number="{n}" hits="{int(n % 4 != 0)}"/>' for n in range(1, 41))
    return (
        '<?xml version="1.0" ?><coverage><sources><source>/home/runner/work/gateway/gateway/src</source></sources>'
        f'<packages><package><classes><class filename="new.py"><lines>{lines}</lines></class>'
        "</classes></package></packages></coverage>"
    ).encode()
