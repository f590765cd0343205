"""Runs, checks and statuses, found by asking.

GitHub has no list of what changed among checks and statuses; they are asked for commit by commit: the newest of the default branch, and that
of a pull request for some time after it came or as long as something is under way there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from codespar.domain.builds import Run
from codespar.domain.happenings import Checked, Ran
from codespar.forges.base import Gone
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.models import CheckRun, Repository, Status, WorkflowRun
from codespar.forges.github.payloads import check_of, delivery_id, needed, of_actions, run_of, status_of
from codespar.forges.github.polling_base import Look, earlier, item_of, items_of, moment_of, stamp

RUNS_KEPT = 300  # runs whose state is kept, the newest; those under way are kept besides
UNDER_WAY_A_LOOK = 30  # runs that have left the first page and are asked for one by one
LONGEST_RUN = timedelta(days=35)  # GitHub ends every run by then
EARLIER_ATTEMPTS = 3
FRESH_FOR = timedelta(minutes=30)  # how long a new commit is asked for its first checks
QUIET_FOR = timedelta(hours=1)  # how often the default branch's newest commit is asked for late ones
GIVEN_UP = timedelta(days=1)  # a check that is never concluded
COMMITS_A_LOOK = 20


async def look_at_runs(seen: Look) -> None:
    """`known` holds of each run its attempt and how it stood: what is not as it was is told."""
    state = seen.state("runs")
    begun = "known" not in state
    newest = await seen.newest_first(
        "runs", f"{seen.path}/actions/runs", {}, WorkflowRun, lambda run: run.created_at, key="workflow_runs"
    )
    known: dict[str, str] = state.setdefault("known", {})
    if "runs" in seen.first_pages:
        state["page"] = [str(run.id) for run in seen.first_pages["runs"]]
    for run, floor in newest:
        if begun and run.id is not None:
            known[str(run.id)] = _stand(run)
        elif not begun:
            await _take_in(seen, run, floor)
    if begun:
        await _tell_default(seen)
    away = [id for id in known if _under_way(known[id]) and id not in state.get("page", [])]
    for id in away[:UNDER_WAY_A_LOOK]:
        try:
            run = item_of(await seen.client.get(f"{seen.path}/actions/runs/{id}"), WorkflowRun)
        except Gone:
            del known[id]
            continue
        at, stood = state["to"], known.pop(id)  # to the end of the line
        known[id] = stood
        await _take_in(seen, run, at)
        if run.created_at and seen.now - run.created_at > LONGEST_RUN:
            del known[id]
    if "gap" not in state:  # else its pages may be read again
        ended = [id for id in known if not _under_way(known[id])]
        for id in sorted(ended, key=int)[:-RUNS_KEPT]:
            del known[id]


async def _take_in(seen: Look, run: WorkflowRun, floor: str) -> None:
    known: dict[str, str] = seen.state("runs")["known"]
    id = str(run.id)
    before, now = known.get(id), _stand(run)
    if run.id is None or before == now:
        return
    known[id] = now
    if before is None and run.updated_at and stamp(run.updated_at) < earlier(floor):
        return  # it ended before what we were to look at
    attempt = run.run_attempt or 1
    first = 1 if before is None else int(before.partition(":")[0]) + (not _under_way(before))
    for number in range(max(first, attempt - EARLIER_ATTEMPTS), attempt):
        try:
            data = await seen.client.get(f"{seen.path}/actions/runs/{id}/attempts/{number}")
        except Gone:
            continue
        _tell(seen, item_of(data, WorkflowRun))
    _tell(seen, run)


async def _tell_default(seen: Look) -> None:
    """How the default branch stands: of each of its workflows the newest run, and the last that has ended."""
    branch = seen.cursor["default"]
    data = await seen.client.get(f"{seen.path}/actions/runs", {"branch": branch, "per_page": 50})
    ended: set[object] = set()
    standing: list[WorkflowRun] = []
    for run in items_of(data, WorkflowRun, "workflow_runs"):
        ours = run.head_repository is None or run.head_repository.id in (None, seen.cursor["id"])
        name = run.workflow_id or run.name
        if run.id is None or not ours or run.event.startswith("pull_request") or name in ended:
            continue
        if run.status == "completed":
            ended.add(name)
        standing.append(run)
    for run in reversed(standing):
        seen.state("runs")["known"][str(run.id)] = _stand(run)
        _tell(seen, run)


def _tell(seen: Look, run: WorkflowRun) -> None:
    def read(one: WorkflowRun) -> None:
        what = Ran(run=run_of(one, _ours(seen), seen.now))
        name = delivery_id(
            "run", what.run.id, what.run.attempt, what.run.conclusion or one.status or "under_way"
        )
        seen.tell(name, what, what.run.updated_at)

    seen.each([run], read)


def _stand(run: WorkflowRun) -> str:
    """Its attempt and how that stands: `2:in_progress:`, `2:completed:failure`."""
    return f"{run.run_attempt or 1}:{run.status}:{run.conclusion or ''}"


def _under_way(stand: str) -> bool:
    return stand.split(":")[1] != "completed"


def watch_commit(seen: Look, commit: str, branch: str) -> None:
    """Ask for the checks of this commit from now on."""
    commits: dict[str, Any] = seen.cursor.setdefault("commits", {})
    came = seen.now - FRESH_FOR if seen.first else seen.now  # at first we do not know; it may be old
    commits.setdefault(commit, {"branch": branch, "since": stamp(came), "asked": "", "told": {}})


def watch_default(seen: Look) -> None:
    """Ask for the checks of the default branch's newest commit, whichever that is."""
    branch = seen.cursor["default"]
    if tip := seen.cursor.get("branches", {}).get(branch):
        watch_commit(seen, tip, branch)
        seen.cursor["commits"][tip]["branch"] = branch


async def look_at_commits(seen: Look) -> None:
    commits: dict[str, dict[str, Any]] = seen.cursor.setdefault("commits", {})
    tip = seen.cursor.get("branches", {}).get(seen.cursor["default"])
    for commit in [commit for commit in commits if commit != tip and not _due(seen, commits[commit])]:
        del commits[commit]
    due = [c for c in commits if _due(seen, commits[c]) or (c == tip and _due(seen, commits[c], QUIET_FOR))]
    for commit in sorted(due, key=lambda commit: commits[commit]["asked"])[:COMMITS_A_LOOK]:
        watched = commits[commit]
        watched["asked"] = stamp(seen.now)
        await seen.source("checks", lambda c=commit: _checks(seen, c))
        await seen.source("statuses", lambda c=commit: _statuses(seen, c))


def _due(seen: Look, watched: dict[str, Any], after: timedelta | None = None) -> bool:
    age = seen.now - moment_of(watched["since"])
    if not watched["asked"] or age < FRESH_FOR or (watched.get("open") and age < GIVEN_UP):
        return True
    return after is not None and seen.now - moment_of(watched["asked"]) >= after


async def _checks(seen: Look, commit: str) -> None:
    path = f"{seen.path}/commits/{commit}/check-runs"
    await _of_commit(seen, commit, "checks", path, "check_runs")


async def _statuses(seen: Look, commit: str) -> None:
    path = f"{seen.path}/commits/{commit}/status"
    await _of_commit(seen, commit, "statuses", path, "statuses")


async def _of_commit(seen: Look, commit: str, kind: str, path: str, key: str) -> None:
    watched: dict[str, Any] = seen.cursor["commits"][commit]
    try:
        watched[f"{kind}_etag"], data = await seen.client.changed(
            path, {"per_page": 100}, watched.get(f"{kind}_etag")
        )
        if data is None:
            return
        if len(items_of(data, Status, key)) == 100:
            watched[f"{kind}_etag"] = None  # a full page stays as it is when the others change
            data = {key: await seen.client.pages(path, {"per_page": 100}, key=key)}
    except (Gone, Unprocessable):
        return  # the commit is not there any more, after a forced push say
    found: list[Run] = []

    def check(read: CheckRun) -> None:
        if not of_actions(read):
            found.append(check_of(read, _ours(seen), seen.now, watched["branch"]).run)

    def status(read: Status) -> None:
        found.append(status_of(read, _ours(seen), seen.now, commit=commit, branch=watched["branch"]).run)

    if kind == "checks":
        seen.each(items_of(data, CheckRun, key), check)
    else:
        seen.each(items_of(data, Status, key), status)
    for run in found:
        stand = f"{run.conclusion}:{stamp(run.updated_at)}" if run.conclusion else "under_way"
        if watched["told"].get(needed(run.id, "id")) != stand:
            watched["told"][run.id] = stand
            name = delivery_id(run.id, run.conclusion or "under_way", stamp(run.updated_at))
            seen.tell(name, Checked(run=run), run.updated_at)
    under_way = {run.id for run in found if run.conclusion is None}
    others = {id for id in watched.get("open", []) if id.startswith("check:") != (kind == "checks")}
    watched["open"] = sorted(under_way | others)


def _ours(seen: Look) -> Repository:
    return Repository(id=seen.cursor["id"], full_name=seen.repository, default_branch=seen.cursor["default"])
