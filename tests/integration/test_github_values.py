"""GitHub's own example payloads, read as the forge reads answers: the same objects come in both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from codespar.forges.base import PullState
from codespar.forges.github.values import (
    CheckData,
    IssueData,
    JobData,
    PullData,
    check_of_run,
    issue_of,
    job_of,
    pull_of,
)
from support.github import webhook_examples

SEEN = datetime(2026, 11, 20, tzinfo=UTC)


def objects(field: str) -> list[dict[str, Any]]:
    return [
        payload[field]
        for event in webhook_examples()
        for payload in event["examples"]
        if isinstance(payload.get(field), dict)
    ]


def test_every_pull_request_among_the_examples_is_read() -> None:
    examples = [one for one in objects("pull_request") if "head" in one]
    pulls = [pull_of(PullData.model_validate(one), SEEN) for one in examples]

    assert len(pulls) > 40
    for one, pull in zip(examples, pulls, strict=True):
        assert (pull.number, pull.title, pull.body) == (one["number"], one["title"], one["body"] or "")
        assert pull.head_commit == one["head"]["sha"]
        assert pull.labels == tuple(label["name"] for label in one.get("labels", ()))
        assert pull.author == one["user"]["login"]
        assert (pull.state is PullState.MERGED) == bool(one.get("merged_at"))
        assert (pull.merge_commit is not None) == bool(one.get("merged_at"))
        assert pull.url.startswith("https://github.com/")


def test_every_issue_check_run_and_job_among_the_examples_is_read() -> None:
    issues = [issue_of(IssueData.model_validate(one)) for one in objects("issue")]
    checks = [check_of_run(CheckData.model_validate(one), SEEN) for one in objects("check_run")]
    jobs = [job_of(JobData.model_validate(one)) for one in objects("workflow_job")]

    assert min(len(issues), len(checks), len(jobs)) >= 5
    assert all(issue.title and issue.url for issue in issues)
    assert {check.passed for check in checks} >= {True, None}
    assert all(job.name and job.id for job in jobs)
