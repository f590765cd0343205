"""The facts of a review, before anybody judges: the diff at the head commit, the code around it, how its files fared before.

Reads, and changes nothing. Whatever cannot be had is named in `problems` and left out; only a pull request that cannot be read at all ends
the review. All text in here was written by others and is data.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from codespar.agents.coverage import covered
from codespar.codeindex.base import CodeIndex, Hit
from codespar.config import ConfigError, RepositoryConfig, parse_repository_config
from codespar.config.work import RepositoryReview
from codespar.domain.base import CodesparError, Value
from codespar.domain.diffs import Diff, DiffError, FileDiff, parse
from codespar.domain.difftext import numbered
from codespar.domain.paths import code_owners
from codespar.domain.reviews import Side
from codespar.domain.risk import Change, ChangedFile, FileHistory
from codespar.domain.tasks import Limits
from codespar.domain.verdicts import CheckState, PullFacts
from codespar.forges.base import (
    AccessLost,
    Forge,
    ForgeError,
    ForgeUnavailable,
    PastCommit,
    PullRequest,
    PullState,
)
from codespar.models.base import Brief, Excerpt

log = structlog.get_logger(__name__)
MOST_PATCH = 32 * 1024**2  # bytes of a change that is given to the analysers
MOST_SHOWN = 120_000  # characters of the diff that a model reads
_NAMES = 40  # changed definitions that are looked up in the index
_CALLERS, _TESTS = 12, 8
_AROUND = 6  # lines before and after a place that uses what was changed
_MOST_HISTORY = 400  # files whose history is read; beyond, the change is large whatever it says
_MOST_COMMITS = 5000  # of the default branch, among which the author's are counted
_YEAR, _QUARTER, _MONTH = timedelta(days=365), timedelta(days=90), timedelta(days=30)
USUAL_CHANGES = 100  # git's word for who made a commit is anybody's: it never makes one better than usual
USUAL_BY_AUTHOR = 1  # nor the author of a file's earlier changes
USUAL_COVERED = 0.5  # nor do reports on coverage, which builds of the change itself made
_CLOSES = re.compile(r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s+#(\d{1,9})\b", re.IGNORECASE)
_OWNERS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")


class Evidence(Value):
    """What was read of a pull request. The diff itself is kept beside it, as text."""

    pull: PullRequest
    default_branch: str
    tip: str  # of the default branch
    brief: Brief
    change: Change
    required: tuple[str, ...] = ()  # checks
    required_unread: str = ""  # why it is not known which checks are required
    changed: tuple[str, ...] = ()  # paths that exist after the change, for the analysers
    touched: tuple[str, ...] = ()  # all paths, a rename's both
    problems: tuple[str, ...] = ()
    analysable: bool = True  # there is a patch to give to the analysers


@dataclass(frozen=True)
class Sources:
    """Where the facts come from."""

    forge: Forge
    index: CodeIndex
    conventions: tuple[str, ...]
    own: Callable[[PullRequest], bool]  # whether our own agent opened it
    limits: Limits


async def gather(
    sources: Sources, pull: PullRequest, now: datetime
) -> tuple[Evidence, str, bytes, RepositoryConfig]:
    """The facts of a pull request that was just fetched: with its diff, its patch for the analysers, and the repository's own rules.

    Raises `ForgeError` when nothing of it can be read.
    """
    forge = sources.forge
    problems: list[str] = []
    default, tip = await forge.sync()
    rules = await rules_at(forge, tip, problems)
    text, diff = await _diff(forge, pull, problems)
    problems += diff.problems
    files = await forge.changes(pull.base_commit, pull.head_commit) if not text else ()
    touched = _touched(diff, [file.path for file in files])
    changed = tuple(file.path for file in diff.files if file.new_path and not file.binary)
    patch = await _patch(forge, pull, default, problems)
    context = await _around(sources, diff, tip, problems)
    shown, left_out = await asyncio.to_thread(numbered, diff, MOST_SHOWN)
    left_out += diff.problems if text else tuple(f"{file.path}: its diff was not read" for file in files)
    past = await forge.history(tip, touched[:_MOST_HISTORY], now - _YEAR, 5000)
    checks = await checks_of(forge, pull)
    brief = Brief(
        repository=forge.repository_name,
        number=pull.number,
        title=pull.title[:500],
        body=pull.body[:8000],
        author=pull.author,
        trusted=False,  # who may push may call a branch, and a commit's author, what they like
        diff=shown,
        left_out=left_out,
        context=context,
        issue=await _issue(forge, pull, problems),
        checks=", ".join(f"{check.name}: {check.conclusion or 'under way'}" for check in checks),
        conventions=sources.conventions,
        paths=tuple(file.path for file in diff.files),
    )
    share, why = None, ""
    if rules.review.coverage is not None:
        share, why = await covered(forge, pull, diff, rules.review.coverage)
        problems += [why] if why else []
    owned = await _owned(forge, tip, touched)
    required, unread = await required_of(forge, pull)
    authors = {line.author for line in await forge.log(pull.base_commit, pull.head_commit, 50)}
    earlier = sum(line.author in authors for line in await forge.log(None, tip, _MOST_COMMITS))
    evidence = Evidence(
        pull=pull.evolve(files=()),
        default_branch=default,
        tip=tip,
        brief=brief,
        change=await asyncio.to_thread(
            _change, pull, diff, [file.path for file in files], past, authors, earlier, owned, share, now
        ),
        required=required,
        required_unread=unread,
        changed=changed,
        touched=touched,
        problems=tuple(problems),
        analysable=bool(patch),
    )
    return evidence, text, patch, rules


def facts_of(pull: PullRequest, evidence: Evidence, own: bool) -> PullFacts:
    """What the gates go by, of the pull request as it is now."""
    return PullFacts(
        head_commit=pull.head_commit,
        is_open=pull.state is PullState.OPEN,
        draft=pull.draft,
        fork=pull.fork,
        # what was read is the change to the base of then: to another one it is another change
        on_default_branch=pull.base_branch == evidence.pull.base_branch == evidence.default_branch,
        by_own_agent=own,
        paths=evidence.touched,
    )


async def rules_at(forge: Forge, tip: str, problems: list[str]) -> RepositoryConfig:
    """Those of the default branch, whose newest commit is `tip`. A change never judges itself by its own."""
    try:
        raw = await forge.read_file(tip, ".codespar.yaml")
        return parse_repository_config(raw, f".codespar.yaml at {tip[:12]}")
    except (ConfigError, ForgeError) as error:
        problems.append(f"the repository's own rules were not used, and nothing is approved: {error}")
        return RepositoryConfig(review=RepositoryReview(approve_up_to="none"))


async def _diff(forge: Forge, pull: PullRequest, problems: list[str]) -> tuple[str, Diff]:
    """As text and as what it says; both empty where it cannot be read."""
    try:
        text = await forge.diff(pull.base_commit, pull.head_commit)
        return text, await asyncio.to_thread(parse, text)
    except (ForgeError, DiffError) as error:
        problems.append(f"the diff was not read: {error}")
        return "", Diff()


async def _patch(forge: Forge, pull: PullRequest, default: str, problems: list[str]) -> bytes:
    if pull.base_branch != default:
        problems.append(f"no analysers: its base is {pull.base_branch}, not {default}")
        return b""
    try:
        return await forge.patch(pull.base_commit, pull.head_commit, MOST_PATCH)
    except ForgeError as error:
        problems.append(f"no analysers: {error}")
        return b""


def _touched(diff: Diff, others: Sequence[str]) -> tuple[str, ...]:
    paths = [path for file in diff.files for path in (file.old_path, file.new_path) if path]
    return tuple(dict.fromkeys([*paths, *others]))


async def _around(sources: Sources, diff: Diff, tip: str, problems: list[str]) -> tuple[Excerpt, ...]:
    """The code that uses what was changed, and the tests of it, as the default branch has them."""
    index = sources.index
    try:
        await index.update(sources.forge.base_repository, tip)
        names = await _changed_names(index, diff)
        paths = [file.old_path for file in diff.files if file.old_path]
        calls = await index.callers(names, _CALLERS) if names else []
        tests = await index.tests_of(paths, names, _TESTS)
        wanted = [(hit, f"uses {hit.symbol}") for hit in calls if hit.path not in paths]
        wanted += [(hit, "tests it") for hit in tests]
        found = [await _excerpt(sources.forge, tip, hit, why) for hit, why in wanted]
        return tuple(one for one in found if one is not None)
    except CodesparError as error:
        problems.append(f"the code around it was not looked up: {error}")
        return ()


async def _changed_names(index: CodeIndex, diff: Diff) -> list[str]:
    names: dict[str, None] = {}
    for file in diff.files:
        if file.old_path is None or file.generated or not file.hunks:
            continue
        lines = file.changed_lines(Side.OLD) or frozenset(
            line for hunk in file.hunks for line in hunk.extent(Side.OLD)
        )
        for known in await index.definitions(file.old_path):
            if any(known.line <= line <= known.end_line for line in lines):
                names[known.name] = None
        if len(names) >= _NAMES:
            break
    return list(names)[:_NAMES]


async def _excerpt(forge: Forge, tip: str, hit: Hit, why: str) -> Excerpt | None:
    raw = await forge.read_file(tip, hit.path)
    if raw is None:
        return None
    lines = raw.decode(errors="replace").replace("\r\n", "\n").split("\n")
    first = max(1, hit.line - _AROUND)
    return Excerpt(
        path=hit.path, start_line=first, text="\n".join(lines[first - 1 : hit.line + _AROUND]), why=why
    )


async def _issue(forge: Forge, pull: PullRequest, problems: list[str]) -> str:
    """The issue that the pull request says it closes."""
    named = _CLOSES.search(f"{pull.title}\n{pull.body}")
    if named is None:
        return ""
    try:
        issue = await forge.issue(int(named[1]))
    except ForgeUnavailable:
        raise
    except ForgeError as error:
        problems.append(f"the issue #{named[1]} was not read: {error}")
        return ""
    return f"#{issue.number} {issue.title}\n{issue.body[:4000]}"


async def checks_of(forge: Forge, pull: PullRequest) -> tuple[CheckState, ...]:
    """How the checks of the head commit stand. Where they cannot be read, one that is under way: what is not known is not green."""
    try:
        found = await forge.checks(pull.head_commit)
    except ForgeUnavailable:
        raise
    except ForgeError as error:
        log.warning("review.checks", pull=pull.number, error=str(error))
        return (CheckState(name="checks that could not be read", conclusion=None),)
    return tuple(CheckState(name=check.name, conclusion=check.ended_as) for check in found)


async def required_of(forge: Forge, pull: PullRequest) -> tuple[tuple[str, ...], str]:
    """The checks that the host requires before it merges, and why they are not known where it does not tell."""
    try:
        return tuple(await forge.required_checks(pull.base_branch)), ""
    except AccessLost as error:
        log.warning("review.required", pull=pull.number, error=str(error))
        return (), str(error)


async def _owned(forge: Forge, tip: str, paths: Sequence[str]) -> bool:
    for place in _OWNERS:
        raw = await forge.read_file(tip, place)
        if raw is not None:
            text = raw.decode(errors="replace")
            return await asyncio.to_thread(_any_owned, text, paths)
    return False


def _any_owned(text: str, paths: Sequence[str]) -> bool:
    return any(code_owners(text, path) for path in paths)


def _change(
    pull: PullRequest,
    diff: Diff,
    unread: Sequence[str],
    past: Sequence[PastCommit],
    authors: set[str],
    earlier: int,
    owned: bool,
    share: float | None,
    now: datetime,
) -> Change:
    by_path: dict[str, list[PastCommit]] = {}
    for commit in past:
        for path in commit.paths:
            by_path.setdefault(path, []).append(commit)

    def history(path: str) -> FileHistory:
        commits = by_path.get(path, [])
        return FileHistory(
            recent_commits=sum(commit.at >= now - _QUARTER for commit in commits),
            authors=len({commit.author for commit in commits}),
            by_author=min(USUAL_BY_AUTHOR, sum(commit.author in authors for commit in commits)),
            reverts=sum(commit.reverts for commit in commits),
            recent_reverts=sum(commit.reverts and commit.at >= now - _MONTH for commit in commits),
        )

    def changed(file: FileDiff) -> ChangedFile:
        moved = file.old_path if file.old_path != file.new_path else None
        return ChangedFile(
            path=file.path,
            old_path=moved if file.new_path else None,
            additions=file.additions,
            deletions=file.deletions,
            added=file.old_path is None,
            generated=file.generated or file.binary,
            history=history(file.old_path or file.path),
        )

    files = [changed(file) for file in diff.files]
    files += [ChangedFile(path=path, history=history(path)) for path in unread]
    return Change(
        title=pull.title[:500],
        files=tuple(files),
        incomplete=bool(unread or diff.problems),
        owned=owned,
        covered=None if share is None else min(share, USUAL_COVERED),
        author_changes=min(USUAL_CHANGES, earlier),
    )
