"""Merging, checks, deployments and builds, where only a strict GitHub of our own can play the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codespar.channels.base import ContentRefused, Part
from codespar.channels.github.adapter import GithubChannel
from codespar.domain.builds import Conclusion
from codespar.domain.tasks import Thread
from codespar.forges.base import (
    AccessLost,
    Check,
    Gone,
    MergeMethod,
    NotMergeable,
    PullState,
)
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import TokenCredentials
from codespar.forges.github.forge import GithubForge
from codespar.forges.github.values import fingerprint
from support.github.api import Asked, Says
from support.github.onepull import PULL, OnePull, one_pull

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[OnePull, GithubForge]]:
    async with one_pull(tmp_path) as made:
        yield made


@pytest.fixture
def github(both: tuple[OnePull, GithubForge]) -> OnePull:
    return both[0]


@pytest.fixture
def forge(both: tuple[OnePull, GithubForge]) -> GithubForge:
    return both[1]


async def test_a_branch_with_a_merge_queue_gets_the_pull_request_queued(
    github: OnePull, forge: GithubForge
) -> None:
    refused = {"message": "Repository rule violations found\n\nChanges must be made through the merge queue"}
    github.on("PUT", f"{PULL}/merge", Says(refused, 405))
    queued = Says({"data": {"enqueuePullRequest": {"mergeQueueEntry": {"id": "MQE_1"}}}})
    again = Says({"errors": [{"type": "UNPROCESSABLE", "message": "Pull request is already in the queue"}]})
    github.on("POST", "/graphql", queued, again)

    for _ in range(2):
        pull = await forge.merge(1, method=MergeMethod.SQUASH, head_commit=github.head, author="ada", at=AT)
        assert (pull.queued, pull.state) == (True, PullState.OPEN)
    variables = github.asked("POST", "/graphql")[0].body["variables"]
    assert variables == {"pull": "PR_1", "head": github.head}


@pytest.mark.parametrize(
    ("state", "status", "message", "told"),
    [
        ("dirty", 405, "Pull Request is not mergeable", "conflicts with its base branch"),
        ("clean", 409, "Head branch was modified. Review and try the merge again.", "was modified"),
        ("clean", 405, "Squash merges are not allowed on this repository.", "Squash merges are not allowed"),
    ],
)
async def test_githubs_reason_not_to_merge_is_told(
    github: OnePull, forge: GithubForge, state: str, status: int, message: str, told: str
) -> None:
    github.pull["mergeable_state"] = state
    github.on("PUT", f"{PULL}/merge", Says({"message": message}, status))
    with pytest.raises(NotMergeable, match=told):
        await forge.merge(1, method=MergeMethod.SQUASH, head_commit=github.head, author="ada", at=AT)


async def test_a_token_that_may_not_make_check_runs_sets_a_status_and_finds_that_out_once(
    github: OnePull, forge: GithubForge
) -> None:
    at = f"/repos/acme/gateway/commits/{github.head}"
    github.lists(f"{at}/check-runs", [], "check_runs")
    github.lists(f"{at}/status", [], "statuses")
    denied = Says({"message": "Resource not accessible by personal access token"}, 403)
    github.on("POST", "/repos/acme/gateway/check-runs", denied)
    path = f"/repos/acme/gateway/statuses/{github.head}"
    github.on("POST", path, Says({"state": "success"}, 201))

    await forge.set_check(1, Check(name="codespar", passed=None, summary="works", at=AT))
    for _ in range(2):
        await forge.set_check(1, Check(name="codespar", passed=True, summary="x" * 500, at=AT))

    assert len(github.asked("POST", "/repos/acme/gateway/check-runs")) == 1
    states = [asked.body["state"] for asked in github.asked("POST", path)]
    assert states == ["pending", "success"]
    assert all(len(asked.body["description"]) <= 140 for asked in github.asked("POST", path))


@pytest.mark.parametrize(
    "message",
    ["Unable to create comment because issue is locked.", "Repository was archived so is read-only."],
)
async def test_what_is_locked_or_archived_is_no_lost_access_that_the_other_messages_wait_for(
    github: OnePull, forge: GithubForge, message: str
) -> None:
    path = "/repos/acme/gateway/issues/1/comments"
    github.lists(path, [])
    github.on("POST", path, Says({"message": message}, 403))
    thread = Thread(channel="github", conversation="acme/gateway", thread_id="1")
    channel = GithubChannel(lambda _: forge)
    with pytest.raises(ContentRefused, match=message.rstrip(".")):
        await channel.send(thread, Part(payload={"body": "done"}, text="done"), "key")


async def test_a_check_run_of_another_codespars_app_is_left_alone(
    github: OnePull, forge: GithubForge
) -> None:
    said = Check(name="codespar", passed=True, summary="fine", at=AT)
    theirs = {
        "id": 5,
        "name": "codespar",
        "external_id": f"codespar:{fingerprint(said)}",
        "app": {"slug": "staging"},
    }
    github.lists(f"/repos/acme/gateway/commits/{github.head}/check-runs", [theirs], "check_runs")
    github.on("PATCH", "/repos/acme/gateway/check-runs/5", Says({"message": "Invalid app_id `7`"}, 403))
    github.on("POST", "/repos/acme/gateway/check-runs", Says({"id": 6}, 201))
    await forge.set_check(1, said)
    assert [one.body["head_sha"] for one in github.asked("POST", "/repos/acme/gateway/check-runs")] == [
        github.head
    ]


async def test_lost_access_is_not_taken_for_a_missing_permission(github: OnePull, forge: GithubForge) -> None:
    github.lists(f"/repos/acme/gateway/commits/{github.head}/check-runs", [], "check_runs")
    suspended = Says({"message": "This installation has been suspended"}, 403)
    github.on("POST", "/repos/acme/gateway/check-runs", suspended)
    for _ in range(2):
        with pytest.raises(AccessLost, match="suspended"):
            await forge.set_check(1, Check(name="codespar", passed=True, at=AT))
    assert len(github.asked("POST", "/repos/acme/gateway/check-runs")) == 2


async def test_a_failed_check_is_not_hidden_by_another_of_the_same_name(
    github: OnePull, forge: GithubForge
) -> None:
    at = f"/repos/acme/gateway/commits/{github.head}"
    runs = [
        {"name": "build", "status": "completed", "conclusion": conclusion, "completed_at": when}
        for conclusion, when in (("failure", "2026-11-20T10:00:00Z"), ("success", "2026-11-20T11:00:00Z"))
    ]
    github.lists(f"{at}/check-runs", runs, "check_runs")
    github.lists(f"{at}/status", [{"context": "ci/old", "state": "pending"}], "statuses")

    found = {check.name: check.passed for check in await forge.checks(github.head)}

    assert found == {"build": False, "ci/old": None}


async def test_the_rule_sets_and_the_protection_of_a_branch_name_the_required_checks(
    github: OnePull, forge: GithubForge
) -> None:
    rules = [
        {"type": "deletion"},
        {"type": "required_status_checks", "parameters": {"required_status_checks": [{"context": "ci"}]}},
    ]
    github.lists("/repos/acme/gateway/rules/branches/release/1.x", rules)
    checks = {"contexts": ["lint"], "checks": [{"context": "lint", "app_id": 1}]}
    protection = {"protection": {"enabled": True, "required_status_checks": checks}}
    github.on("GET", "/repos/acme/gateway/branches/release/1.x", Says(protection))

    assert await forge.required_checks("release/1.x") == ["ci", "lint"]
    assert await forge.required_checks("main") == []


@pytest.mark.parametrize(
    ("path", "what", "needs"),
    [
        ("rules/branches/main", "the rule sets of main", "Metadata: read"),
        ("branches/main", "the protection of main", "Contents: read"),
    ],
)
@pytest.mark.parametrize("status", [401, 403, 409, 422])
async def test_where_github_refuses_to_tell_the_required_checks_that_is_not_taken_for_none(
    github: OnePull, forge: GithubForge, path: str, what: str, needs: str, status: int
) -> None:
    github.lists("/repos/acme/gateway/rules/branches/main", [])
    github.on("GET", "/repos/acme/gateway/branches/main", Says({"protected": False}))
    assert await forge.required_checks("main") == []
    refused = Says({"message": "Resource not accessible by personal access token"}, status)
    github.on("GET", f"/repos/acme/gateway/{path}", refused)
    with pytest.raises(AccessLost, match=rf"{what} could not be read.*{needs}: GitHub"):
        await forge.required_checks("main")


async def test_a_server_and_a_plan_without_rules_require_no_check(
    github: OnePull, forge: GithubForge
) -> None:
    upgrade = "Upgrade to GitHub Pro or make this repository public to enable this feature."
    for answer in (Says({"message": "Not Found"}, 404), Says({"message": upgrade}, 403)):
        github.on("GET", "/repos/acme/gateway/rules/branches/main", answer)
        protection = {"protection": {"required_status_checks": {"contexts": ["ci"]}}}
        github.on("GET", "/repos/acme/gateway/branches/main", Says(protection))
        assert await forge.required_checks("main") == ["ci"]
        github.on("GET", "/repos/acme/gateway/branches/main", answer)
        assert await forge.required_checks("main") == []


async def test_githubs_reason_not_to_merge_is_told_though_it_does_not_tell_the_required_checks(
    github: OnePull, forge: GithubForge
) -> None:
    github.pull["mergeable_state"] = "blocked"
    github.on("PUT", f"{PULL}/merge", Says({"message": "Required status check is expected"}, 405))
    github.on("GET", "/repos/acme/gateway/rules/branches/main", Says({"message": "No"}, 403))
    github.lists(f"/repos/acme/gateway/commits/{github.head}/check-runs", [], "check_runs")
    github.lists(f"/repos/acme/gateway/commits/{github.head}/status", [], "statuses")
    with pytest.raises(NotMergeable, match="Required status check is expected"):
        await forge.merge(1, method=MergeMethod.SQUASH, head_commit=github.head, author="ada", at=AT)


async def test_a_deployment_is_recorded_once_and_said_to_stand_as_it_does(
    github: OnePull, forge: GithubForge
) -> None:
    made: list[dict[str, Any]] = []
    statuses: list[dict[str, Any]] = []
    at = "/repos/acme/gateway/deployments"

    def record(asked: Asked) -> Says:
        made.append({"id": 9} | asked.body)
        return Says(made[-1], 201)

    def say(asked: Asked) -> Says:
        statuses.insert(0, asked.body)
        return Says(asked.body, 201)

    github.on("GET", at, lambda asked: Says(made))
    github.on("POST", at, record)
    github.on("GET", f"{at}/9/statuses", lambda asked: Says(statuses[:1]))
    github.on("POST", f"{at}/9/statuses", say)
    for _ in range(2):
        id = await forge.start_deployment(
            ref=github.head, environment="staging", description="by ada", key="dp-abc123"
        )
        await forge.set_deployment(id, state="in_progress", description="starts")
    await forge.set_deployment("9", state="success", description="healthy")

    assert (id, len(made)) == ("9", 1)
    assert made[0]["required_contexts"] == []
    assert made[0]["auto_merge"] is False
    assert [one["state"] for one in statuses] == ["success", "in_progress"]


class AnApp(TokenCredentials):
    """Credentials of an App's installation, whose token came from elsewhere."""

    async def app_jwt(self) -> str | None:
        return "a.jwt.of-the-app"


async def test_an_app_asks_once_who_it_is_and_is_known_as_a_bot(github: OnePull, tmp_path: Path) -> None:
    def clock() -> datetime:
        return datetime.now(UTC)

    credentials = AnApp(github.token, variable="-", clock=clock)
    client = GithubClient(api_url=github.url, credentials=credentials, clock=clock)
    forge = GithubForge(tmp_path, "acme/gateway", client, credentials, clock=clock)
    github.on("POST", "/graphql", Says({"data": {"viewer": {"login": "codespar[bot]"}}}))

    assert [await forge.me(), await forge.me()] == ["codespar[bot]"] * 2
    assert len(github.requests) == 1
    await client.close()


async def test_runs_jobs_logs_and_artefacts_are_read(github: OnePull, forge: GithubForge) -> None:
    at = "/repos/acme/gateway/actions"
    run = {
        "id": 30,
        "name": "CI",
        "head_branch": "main",
        "head_sha": github.base,
        "status": "completed",
        "conclusion": "failure",
        "run_attempt": 2,
        "run_started_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:05:00Z",
    }
    steps = [
        {"number": 1, "name": "Set up job", "status": "completed", "conclusion": "success"},
        {"number": 2, "name": "make test", "status": "completed", "conclusion": "failure"},
    ]
    job = {"id": 31, "name": "test", "status": "completed", "conclusion": "failure", "steps": steps}
    github.lists(f"{at}/runs", [run, run | {"id": 29, "head_sha": github.head}], "workflow_runs")
    github.lists(f"{at}/runs/30/attempts/2/jobs", [job, {"id": 32, "status": "queued"}], "jobs")
    github.blobs.content = b"##[error]it broke\n" * 5000
    github.on("GET", f"{at}/jobs/31/logs", Says(status=302, headers={"Location": github.blobs.url}))
    artefacts = [{"id": 33, "name": "report", "size_in_bytes": 12, "expired": True}]
    github.lists(f"{at}/runs/30/artifacts", artefacts, "artifacts")
    github.on("GET", f"{at}/artifacts/33/zip", Says({"message": "Artifact has expired"}, 410))

    (found,) = await forge.runs(branch="main", commit=github.base)
    failed, waiting = await forge.jobs(found.id, found.attempt)
    log = b"".join([piece async for piece in forge.job_log(found.id, failed.id)])
    (artefact,) = await forge.artefacts(found.id)

    assert (found.attempt, found.conclusion, found.workflow) == (2, Conclusion.FAILURE, "CI")
    assert failed.failed_step is not None
    assert failed.failed_step.name == "make test"
    assert waiting.conclusion is None
    assert log == github.blobs.content
    assert (artefact.name, artefact.expired) == ("report", True)
    with pytest.raises(Gone):
        async with aclosing(forge.artefact(artefact.id)) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                raise AssertionError("it has expired")
    query = github.asked("GET", f"{at}/runs")[0].query
    assert (query["branch"], query["head_sha"]) == ("main", github.base)
