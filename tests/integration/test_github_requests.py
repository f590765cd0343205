"""Every request that the GitHub forge sends, judged by GitHub's own OpenAPI document.

The document's examples come back, which contradict one another: nothing is asserted of what is made of them. `ENDPOINTS` is the whole of what
the forge asks; a new call that is not in it is refused here, and one that is not made any more is missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from codespar.app.webhooks import EVENTS
from codespar.domain.builds import Conclusion
from codespar.domain.reviews import ReviewVerdict, Side
from codespar.forges.base import (
    Annotation,
    Check,
    ForgeError,
    InlineComment,
    MergeMethod,
    PullState,
    ReviewDraft,
)
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import TokenCredentials
from codespar.forges.github.forge import GithubForge
from support.githttp import GitServer
from support.github import description
from support.github.prism import Prism
from support.repositories import git, repository

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TOKEN = "github_pat_any"
REPOSITORY = "octocat/Hello-World.git"
COMMIT = "6dcb09b5b57875f334f61aebed695e2e4193db5e"  # of the document's examples
HOOK = "https://example.com/webhook"  # of its example of a webhook
ENDPOINTS = (
    "GET /repos/{owner}/{repo}/actions/artifacts/{artifact_id}/{archive_format}",
    "GET /repos/{owner}/{repo}/actions/jobs/{job_id}/logs",
    "GET /repos/{owner}/{repo}/actions/runs",
    "GET /repos/{owner}/{repo}/actions/runs/{run_id}/artifacts",
    "GET /repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}/jobs",
    "GET /repos/{owner}/{repo}/branches/{branch}",
    "POST /repos/{owner}/{repo}/check-runs",
    "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}",
    "DELETE /repos/{owner}/{repo}/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/comments/{comment_id}",
    "PATCH /repos/{owner}/{repo}/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/commits/{commit_sha}/comments",
    "POST /repos/{owner}/{repo}/commits/{commit_sha}/comments",
    "GET /repos/{owner}/{repo}/commits/{ref}/check-runs",
    "GET /repos/{owner}/{repo}/commits/{ref}/status",
    "GET /repos/{owner}/{repo}/deployments",
    "POST /repos/{owner}/{repo}/deployments",
    "GET /repos/{owner}/{repo}/deployments/{deployment_id}/statuses",
    "POST /repos/{owner}/{repo}/deployments/{deployment_id}/statuses",
    "GET /repos/{owner}/{repo}/hooks",
    "POST /repos/{owner}/{repo}/hooks",
    "PATCH /repos/{owner}/{repo}/hooks/{hook_id}",
    "DELETE /repos/{owner}/{repo}/issues/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/issues/comments/{comment_id}",
    "PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/issues/{issue_number}",
    "GET /repos/{owner}/{repo}/issues/{issue_number}/comments",
    "POST /repos/{owner}/{repo}/issues/{issue_number}/comments",
    "POST /repos/{owner}/{repo}/issues/{issue_number}/labels",
    "GET /repos/{owner}/{repo}/pulls",
    "POST /repos/{owner}/{repo}/pulls",
    "DELETE /repos/{owner}/{repo}/pulls/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/pulls/comments/{comment_id}",
    "PATCH /repos/{owner}/{repo}/pulls/comments/{comment_id}",
    "GET /repos/{owner}/{repo}/pulls/{pull_number}",
    "PATCH /repos/{owner}/{repo}/pulls/{pull_number}",
    "GET /repos/{owner}/{repo}/pulls/{pull_number}/comments",
    "POST /repos/{owner}/{repo}/pulls/{pull_number}/comments/{comment_id}/replies",
    "PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge",
    "POST /repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers",
    "GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews",
    "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews",
    "DELETE /repos/{owner}/{repo}/pulls/{pull_number}/reviews/{review_id}",
    "GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews/{review_id}/comments",
    "GET /repos/{owner}/{repo}/rules/branches/{branch}",
    "POST /repos/{owner}/{repo}/statuses/{sha}",
    "GET /user",
)


POLLED = (  # by `poll`, in every look
    "GET /repos/{owner}/{repo}",
    "GET /repos/{owner}/{repo}/git/matching-refs/{ref}",
    "GET /repos/{owner}/{repo}/issues",
    "GET /repos/{owner}/{repo}/issues/comments",
    "GET /repos/{owner}/{repo}/pulls/comments",
)
POLLED_AT_TIMES = (  # where something changed
    "GET /repos/{owner}/{repo}/actions/runs/{run_id}",
    "GET /repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}",
    "GET /repos/{owner}/{repo}/activity",
)


@pytest.fixture(scope="module")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    folder = tmp_path_factory.mktemp("git")
    bare = repository(folder / REPOSITORY)
    git("update-ref", "refs/pull/1347/head", "main", cwd=bare)
    with GitServer(folder, "x-access-token", TOKEN) as server:
        server.commit = git("rev-parse", "main", cwd=bare)  # type: ignore[attr-defined]
        yield server


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory, git_server: GitServer) -> Iterator[Prism]:
    swaps = (
        (COMMIT, git_server.commit),  # type: ignore[attr-defined]
        (r'"merged_at": "[^"]+"', '"merged_at": null'),  # an open pull request, which can be merged
        (r'"state": "closed"', '"state": "open"'),
    )
    with Prism(tmp_path_factory.mktemp("prism"), (*ENDPOINTS, *POLLED, *POLLED_AT_TIMES), *swaps) as running:
        yield running


@pytest.fixture
async def forge(prism: Prism, git_server: GitServer, tmp_path: Path) -> AsyncIterator[GithubForge]:
    def clock() -> datetime:
        return datetime.now(UTC)

    credentials = TokenCredentials(TOKEN, variable="CODESPAR_GITHUB_TOKEN", clock=clock)
    client = GithubClient(api_url=prism.front.url, credentials=credentials, clock=clock, write_spacing=0.0)
    git_url = f"http://{git_server.address}/{REPOSITORY}"
    prism.front.forget()
    yield GithubForge(tmp_path, "octocat/Hello-World", client, credentials, git_url=git_url, clock=clock)
    await client.close()


async def _read(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        return


CHECK = Check(
    name="codespar/review",
    passed=False,
    at=AT,
    title="2 findings",
    summary="**bad**",
    text="long",
    url="https://codespar.example.com/reviews/1",
    annotations=tuple(
        Annotation(
            path="a.py", start_line=line, end_line=line + 1, level="warning", title="E1", message="wrong"
        )
        for line in range(1, 61)
    ),
)
REVIEW = ReviewDraft(
    head_commit="a" * 40,
    verdict=ReviewVerdict.REQUEST_CHANGES,
    body="please",
    comments=(
        InlineComment(path="a.py", line=5, start_line=3, body="```suggestion\nx\n```"),
        InlineComment(path="a.py", line=9, side=Side.OLD, body="why?"),
    ),
)


async def _poll_twice(forge: GithubForge) -> None:
    first = await forge.poll({})
    await forge.poll(first.cursor)


def calls(forge: GithubForge, head: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every method that asks something of GitHub's API, with all that it can send."""
    opening: dict[str, Any] = {
        "branch": "task/one",
        "commit": COMMIT,
        "base_branch": "main",
        "base_commit": COMMIT,
        "title": "feat: greet",
        "body": "Closes #7",
        "author": "ada",
        "at": AT,
        "draft": True,
        "labels": ("codespar",),
        "reviewers": ("ada", "octo-org/justice-league"),
    }
    made: dict[str, Callable[[], Awaitable[Any]]] = {
        "me": forge.me,
        "open_pull": lambda: forge.open_pull(**opening),
        "get_pull": lambda: forge.get_pull(1347),
        "fetch_pull": lambda: forge.fetch_pull(1347),
        "close": lambda: forge.close(1347, at=AT),
        "conflicts": lambda: forge.conflicts(1347),
        "set_check": lambda: forge.set_check(1347, CHECK),
        "set_check under way": lambda: forge.set_check(
            1347, CHECK.evolve(passed=None, name="other", annotations=())
        ),
        "checks": lambda: forge.checks(COMMIT),
        "required_checks": lambda: forge.required_checks("release/1.x"),
        "set_status": lambda: forge.set_status(
            COMMIT, context="codespar", state=None, description="x" * 200, url="https://example.com/"
        ),
        "set_status of a failure": lambda: forge.set_status(
            COMMIT, context="other", state=Conclusion.TIMED_OUT, description=""
        ),
        "comment_commit": lambda: forge.comment_commit(COMMIT, "broken", "build-1"),
        "comment": lambda: forge.comment(1347, "hello", "task-1"),
        "find_comment": lambda: forge.find_comment(1347, "task-1", AT),
        "submit_review": lambda: forge.submit_review(1347, REVIEW, "review-1"),
        "submit_review without comments": lambda: forge.submit_review(
            1347, REVIEW.evolve(comments=(), verdict=ReviewVerdict.APPROVE), "review-2"
        ),
        "resolve": lambda: forge.resolve(1347, ["discussion_r10", "discussion_r8"], "fixed"),
        "issue": lambda: forge.issue(1347),
        "runs": lambda: forge.runs(branch="main", commit=COMMIT, limit=30),
        "jobs": lambda: forge.jobs("29679449", 2),
        "job_log": lambda: _read(forge.job_log("29679449", "21")),
        "artefacts": lambda: forge.artefacts("29679449"),
        "artefact": lambda: _read(forge.artefact("11")),
        "start_deployment": lambda: forge.start_deployment(
            ref=COMMIT, environment="staging", description="by ada", key="dp-1"
        ),
        "set_deployment": lambda: forge.set_deployment(
            "42", state="in_progress", description="watched", url="https://example.com/d/42"
        ),
    }
    made["poll"] = lambda: _poll_twice(forge)
    for url in ("https://codespar.example.com/webhooks/github", HOOK):
        made[f"ensure_webhook {url}"] = lambda url=url: forge.ensure_webhook(url, "a secret", EVENTS)
    for state in (None, *PullState):
        made[f"list_pulls {state}"] = lambda state=state: forge.list_pulls(state)
    for method in MergeMethod:
        made[f"merge {method}"] = lambda method=method: forge.merge(
            1347, method=method, head_commit=head, author="ada", at=AT
        )
    for comment in ("issuecomment-11", "discussion_r11", "commitcomment-11"):
        made[f"edit {comment}"] = lambda comment=comment: forge.edit_comment(comment, "better")
        made[f"delete {comment}"] = lambda comment=comment: forge.delete_comment(comment)
    return made


async def test_github_would_take_every_request_that_the_forge_sends(
    prism: Prism, forge: GithubForge, git_server: GitServer
) -> None:
    for call in calls(forge, git_server.commit).values():
        with contextlib.suppress(ForgeError):  # an example that contradicts what was asked
            await call()
    with contextlib.suppress(ForgeError):  # a draft from before a crash
        await forge._take_back("/repos/octocat/Hello-World/pulls/1347/reviews", {"id": 80})

    graphql = {"POST /graphql"}  # which the document does not have
    refused = [
        f"{one.line} {one.query} {one.body}: {', '.join(one.violations)}"
        for one in prism.front.noted
        if one.line not in graphql and one.violations
    ]
    assert not refused
    assert prism.used() - graphql - {*POLLED_AT_TIMES} == {*ENDPOINTS, *POLLED}


def test_a_request_that_is_wrong_is_refused_here(prism: Prism) -> None:
    prism.front.forget()
    at = f"{prism.front.url}/repos/octocat/Hello-World"
    with httpx.Client(timeout=60) as client:
        client.post(f"{at}/pulls", json={"title": "no branches"})
        client.post(f"{at}/check-runs", json={"name": "x", "head_sha": COMMIT, "status": "done"})
        client.get(f"{at}/unheard-of")

    wrong, odd, unknown = prism.front.noted
    assert "head" in " ".join(wrong.violations)
    assert "status" in " ".join(odd.violations)
    assert "Route not resolved" in " ".join(unknown.violations)


def test_the_document_has_no_graphql_and_all_that_the_forge_asks() -> None:
    document = description()
    assert "/graphql" not in document["paths"]
    for endpoint in (*ENDPOINTS, *POLLED, *POLLED_AT_TIMES):
        method, _, path = endpoint.partition(" ")
        assert method.lower() in document["paths"][path]
