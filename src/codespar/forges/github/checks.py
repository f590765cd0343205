"""What is said of commits at GitHub: check runs, statuses, deployments.

A check run needs an App. With a token each check becomes a plain status of the same name: without its text and annotations, and found out
once. With a fine-grained token the check runs of others may not be readable either; then the runs of GitHub Actions stand for them, by the
names of their workflows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any, cast

import structlog

from codespar.domain.builds import Conclusion
from codespar.forges.base import AccessLost, Check, ForgeError, Gone, PullRequest
from codespar.forges.github.errors import Unprocessable
from codespar.forges.github.hosted import Hosted, quoted
from codespar.forges.github.marks import short
from codespar.forges.github.models import App, Status, WorkflowRun
from codespar.forges.github.values import (
    CheckData,
    check_of_run,
    check_of_status,
    check_of_workflow,
    fingerprint,
    id_in,
    stamp,
)

log = structlog.get_logger(__name__)
ANNOTATIONS = 50  # in one request
_TEXT = 65_535  # characters of a check's summary, and of its text
_STATUS = 140  # characters of a status's or a deployment's description
_NOT_IN_PLAN = (
    "Upgrade to GitHub"  # begins what is said of rules in a private repository of a free account: it has none
)
_OURS = "codespar:"  # begins the external id of our check runs
_UNSETTABLE = {Conclusion.STARTUP_FAILURE: "failure", Conclusion.STALE: "neutral"}
_LEVELS = ("notice", "warning", "failure")
_STATES = {
    None: "pending",
    Conclusion.SUCCESS: "success",
    Conclusion.NEUTRAL: "success",
    Conclusion.SKIPPED: "success",
    Conclusion.FAILURE: "failure",
    Conclusion.TIMED_OUT: "failure",
    Conclusion.STARTUP_FAILURE: "failure",
}


class Checks(Hosted):
    """The part of the GitHub forge that says how commits fare."""

    _makes_runs: bool | None = None  # whether we may make check runs; None: not tried yet
    _reads_runs: bool = True

    async def set_check(self, number: int, check: Check) -> PullRequest:
        """One request for the head; then one to look and one to say it, and from the second time on one alone: none where it says the same.
        Each further 50 annotations take one more."""
        pull, _ = await self._pull(number)
        if self._makes_runs is not False:
            try:
                await self._set_run(pull.head_commit, check)
                self._makes_runs = True
            except (AccessLost, Gone) as error:
                if self._makes_runs:
                    raise
                await self._set_as_status(pull.head_commit, check, error)
                log.info("github.checks.as_statuses", repository=self._repository, reason=str(error)[:200])
                self._makes_runs = False
        else:
            await self._set_as_status(pull.head_commit, check, None)
        return pull.evolve(checks=(check,))

    async def _set_as_status(self, commit: str, check: Check, refused: ForgeError | None) -> None:
        told = check.title or check.summary or check.name
        try:
            await self.set_status(
                commit, context=check.name, state=check.ended_as, description=told, url=check.url
            )
        except (AccessLost, Gone) as error:
            raise refused or error from error

    async def _set_run(self, commit: str, check: Check) -> None:
        """A run of ours carries in its external id what it says, and how many annotations of that it has."""
        says = fingerprint(check)
        complete = f"{says}!{len(check.annotations)}" if check.annotations else says
        run, said = self._said.get((commit, check.name)) or await self._run_before(commit, check)
        done = 0
        if said == complete:
            self._said[commit, check.name] = (run, complete)
            return
        if said.startswith(f"{says}!"):  # a crash came between its portions of annotations
            done = int(said.partition("!")[2])
        elif "!" in said:
            run = ""  # annotations can be added to a run and not taken away: a new one takes its place
        self._said.pop((commit, check.name), None)  # until all of it has arrived, GitHub knows better
        while True:
            part = check.annotations[done : done + ANNOTATIONS]
            done += len(part)
            body = _run_body(check, part, f"{says}!{done}" if part else says)
            if run:
                await self._client.send("PATCH", self._at(f"/check-runs/{run}"), body)
            else:
                body["head_sha"] = commit
                run = id_in(await self._client.send("POST", self._at("/check-runs"), body))
            if done >= len(check.annotations):
                break
        self._said[commit, check.name] = (run, complete)

    async def _run_before(self, commit: str, check: Check) -> tuple[str, str]:
        """Our newest check run of that name, and what it says."""
        params = {"check_name": check.name, "filter": "latest"}
        path = self._at(f"/commits/{commit}/check-runs")
        for item in await self._client.pages(path, params, key="check_runs", most=100):
            data = CheckData.model_validate(item)
            if data.external_id.startswith(_OURS) and await self._is_our_app(data.app):
                return id_in(item), data.external_id.removeprefix(_OURS)
        return "", ""

    async def _is_our_app(self, app: App) -> bool:
        """Another App that acts for a CodeSpar has check runs like ours, which GitHub lets it alone change."""
        return not app.slug or f"{app.slug}[bot]".casefold() == (await self.me()).casefold()

    # what is said of a commit

    async def checks(self, commit: str) -> list[Check]:
        """Two requests. Where two checks have one name, the worse counts: nobody takes another's for a failed one."""
        seen = self._clock()
        found = await self._check_runs(commit, seen)
        try:
            statuses = await self._client.pages(self._at(f"/commits/{commit}/status"), key="statuses")
        except Gone:
            statuses = []
        found += [check_of_status(Status.model_validate(item), seen) for item in statuses]
        worst: dict[str, Check] = {}
        for check in found:
            other = worst.get(check.name)
            if other is None or (_rank(check), check.at) > (_rank(other), other.at):
                worst[check.name] = check
        return list(worst.values())

    async def _check_runs(self, commit: str, seen: datetime) -> list[Check]:
        if self._reads_runs:
            try:
                items = await self._client.pages(
                    self._at(f"/commits/{commit}/check-runs"), {"filter": "latest"}, key="check_runs"
                )
                return [check_of_run(CheckData.model_validate(item), seen) for item in items]
            except AccessLost as error:
                log.info("github.checks.from_runs", repository=self._repository, reason=str(error)[:200])
                self._reads_runs = False
        items = await self._client.pages(
            self._at("/actions/runs"), {"head_sha": commit}, key="workflow_runs", most=100
        )
        return [check_of_workflow(WorkflowRun.model_validate(item), seen) for item in items]

    async def required_checks(self, branch: str) -> list[str]:
        """Two requests, which need to read the contents alone: rule sets, and the branch's own protection."""
        names: dict[str, None] = {}
        rules = self._client.pages(self._at(f"/rules/branches/{quoted(branch)}"))
        for rule in await _told("rule sets", branch, "Metadata: read", rules) or ():
            parameters: Any = rule.get("parameters")
            if rule.get("type") == "required_status_checks" and isinstance(parameters, dict):
                names |= _contexts(cast(dict[str, Any], parameters).get("required_status_checks"))
        protected = self._client.get(self._at(f"/branches/{quoted(branch)}"))
        told: Any = await _told("protection", branch, "Contents: read", protected)
        protection = told.get("protection") if isinstance(told, dict) else None  # pyright: ignore[reportUnknownMemberType]
        checks: Any = (
            cast(dict[str, Any], protection).get("required_status_checks")
            if isinstance(protection, dict)
            else None
        )
        if isinstance(checks, dict):
            named = cast(dict[str, Any], checks)
            names |= _contexts(named.get("checks")) | _contexts(named.get("contexts"))
        return list(names)

    async def set_status(
        self, commit: str, *, context: str, state: Conclusion | None, description: str, url: str = ""
    ) -> None:
        """One request to look and one to say it; none where this process just said the same."""
        said = {"state": _STATES.get(state, "error"), "description": short(description, _STATUS)}
        said |= {"target_url": url} if url else {}
        known = self._said.get((commit, f"status:{context}"))
        if known is not None and known[1] == str(said):
            return
        if known is None:
            there = await self._client.pages(self._at(f"/commits/{commit}/status"), key="statuses")
            mine = next((one for one in there if one.get("context") == context), {})
            same = all((mine.get(key) or "") == value for key, value in said.items())
            if same and (url or not mine.get("target_url")):
                self._said[commit, f"status:{context}"] = ("", str(said))
                return
        await self._client.send(
            "POST", self._at(f"/statuses/{commit}"), {"context": context} | said, repeatable=True
        )
        self._said[commit, f"status:{context}"] = ("", str(said))

    # deployments

    async def start_deployment(self, *, ref: str, environment: str, description: str, key: str) -> str:
        """One request to look and one to make it. GitHub waits for no check and merges nothing: whether to deploy was decided before."""
        params = {"ref": ref, "environment": environment}
        for one in await self._client.pages(self._at("/deployments"), params):
            payload: Any = one.get("payload")
            if isinstance(payload, dict) and cast(dict[str, Any], payload).get("codespar") == key:
                return id_in(one)
        body: Mapping[str, Any] = {
            "ref": ref,
            "environment": environment,
            "description": short(description, _STATUS),
            "auto_merge": False,
            "required_contexts": [],
            "payload": {"codespar": key},
        }
        return id_in(await self._client.send("POST", self._at("/deployments"), body))

    async def set_deployment(self, deployment: str, *, state: str, description: str, url: str = "") -> None:
        """One request to look at the newest, and one to say it where that is another."""
        path = self._at(f"/deployments/{quoted(deployment)}/statuses")
        said = {"state": state, "description": short(description, _STATUS)} | (
            {"log_url": url} if url else {}
        )
        newest = next(iter(await self._client.pages(path, most=1)), {})
        if all((newest.get(name) or "") == value for name, value in said.items()):
            return
        await self._client.send("POST", path, said, repeatable=True)


async def _told(what: str, branch: str, needs: str, asked: Awaitable[Any]) -> Any:
    """The answer; None where there is no such thing: at a server that knows none, or in a plan without. Raises `AccessLost` for any other refusal."""
    try:
        return await asked
    except Gone:
        return None
    except (AccessLost, Unprocessable) as error:
        if _NOT_IN_PLAN in str(error):
            return None
        raise AccessLost(
            f"the {what} of {branch} could not be read, which takes the permission {needs}: {error}"
        ) from error


def _rank(check: Check) -> int:
    return {False: 2, None: 1, True: 0}[check.passed]


def _contexts(told: Any) -> dict[str, None]:
    """Names of checks: texts, or objects with a `context`."""
    items = cast(list[Any], told) if isinstance(told, list) else []
    names = (cast(dict[str, Any], item).get("context") if isinstance(item, dict) else item for item in items)
    return {name: None for name in names if isinstance(name, str) and name}


def _run_body(check: Check, part: tuple[Any, ...], says: str) -> dict[str, Any]:
    output: dict[str, Any] = {
        "title": check.title or check.name,
        "summary": check.summary[:_TEXT],
        "annotations": [
            {
                "path": one.path,
                "start_line": one.start_line,
                "end_line": max(one.start_line, one.end_line),
                "annotation_level": one.level if one.level in _LEVELS else "notice",
                "message": one.message or one.title,
            }
            | ({"title": short(one.title, 255)} if one.title else {})
            for one in part
        ],
    }
    if not part:
        del output["annotations"]
    if check.text:
        output["text"] = check.text[:_TEXT]
    ended = check.ended_as
    body: dict[str, Any] = {"name": check.name, "external_id": f"{_OURS}{says}", "output": output}
    if check.url:
        body["details_url"] = check.url
    if ended is None:
        return body | {"status": "in_progress", "started_at": stamp(check.at)}
    conclusion = _UNSETTABLE.get(ended, ended.value)
    return body | {"status": "completed", "conclusion": conclusion, "completed_at": stamp(check.at)}
