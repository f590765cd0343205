"""What GitHub's webhooks become: all the published examples, GitHub's own list of events, and payloads that are not as they should be."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.builds import Conclusion
from codespar.domain.happenings import (
    NO_COMMIT,
    Checked,
    Deployed,
    InstallationChanged,
    IssueChanged,
    Pinged,
    PullAction,
    PullChanged,
    Pushed,
    Ran,
    RepositoryChanged,
    Reviewed,
)
from codespar.forges.github.events import ANY, TABLE, rule_for
from codespar.forges.github.webhooks import BadSignature, Delivered, Malformed, normalize, verify
from support.github.payloads import example, examples, published

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GUID = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
SECRET = "It's a Secret to Everybody"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "github-webhooks.md"


def read(event: str, payload: Any) -> Delivered:
    return normalize(event, GUID, payload, NOW)


def what(event: str, payload: Any) -> Any:
    delivered = read(event, payload)
    assert len(delivered.news) == 1, delivered.ignored
    return delivered.news[0].what


def signed(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_the_signature_of_githubs_own_documentation_is_accepted() -> None:
    header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verify(b"Hello, World!", {"X-Hub-Signature-256": header}, SECRET)
    verify(b"Hello, World!", {"x-hub-signature-256": header}, SECRET)


@pytest.mark.parametrize(
    ("headers", "secret", "says"),
    [
        ({}, SECRET, "no X-Hub-Signature-256"),
        ({"X-Hub-Signature-256": ""}, SECRET, "no X-Hub-Signature-256"),
        (
            {"X-Hub-Signature": "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"},
            SECRET,
            "SHA-1 signature only",
        ),
        ({"X-Hub-Signature-256": signed(b"{}", "another")}, SECRET, "another secret"),
        ({"X-Hub-Signature-256": signed(b"{} ")}, SECRET, "another secret"),
        ({"X-Hub-Signature-256": signed(b"{}").removeprefix("sha256=")}, SECRET, "another secret"),
        ({"X-Hub-Signature-256": signed(b"{}").upper()}, SECRET, "another secret"),
        ({"X-Hub-Signature-256": "sha256=\u00e4\udc80"}, SECRET, "another secret"),
        ({"X-Hub-Signature-256": signed(b"{}", "")}, "", "CODESPAR_GITHUB_WEBHOOK_SECRET"),
    ],
)
def test_a_request_that_proves_nothing_is_refused(headers: dict[str, str], secret: str, says: str) -> None:
    with pytest.raises(BadSignature, match=re.escape(says)) as refused:
        verify(b"{}", headers, secret)
    assert not secret or secret not in str(refused.value)


@given(st.binary(max_size=200), st.integers(min_value=0), st.integers(1, 255))
def test_a_body_of_which_any_byte_was_changed_is_refused(body: bytes, place: int, other: int) -> None:
    header = {"X-Hub-Signature-256": signed(body)}
    verify(body, header, SECRET)
    place %= len(body) + 1
    changed = body[:place] + bytes([(body[place] if place < len(body) else 0) ^ other]) + body[place + 1 :]
    with pytest.raises(BadSignature):
        verify(changed, header, SECRET)


def test_every_published_example_becomes_news_or_a_comment_or_is_passed_over_by_a_row_of_the_table() -> None:
    assert len(examples()) >= 329
    assert len({event for event, _ in examples()}) >= 58
    for event, payload in examples():
        delivered = read(event, payload)
        follows = bool(delivered.news) or delivered.comment is not None
        assert follows != bool(delivered.ignored), (event, payload.get("action"))
        assert rule_for(event, payload.get("action", "")) is not None
        assert "do not know" not in delivered.ignored, (event, payload.get("action"))
        for news in delivered.news:
            assert news.delivery == GUID
            assert news.repository == payload.get("repository", {}).get("full_name", "")
            assert news.sender == payload["sender"]["login"]
        assert Delivered.model_validate(delivered.wire()) == delivered


@pytest.mark.parametrize(
    ("event", "kind", "least"),
    [
        ("push", Pushed, 2),
        ("pull_request", PullChanged, 20),
        ("pull_request_review", Reviewed, 4),
        ("pull_request_review_comment", Reviewed, 3),
        ("issues", IssueChanged, 15),
        ("check_run", Checked, 5),
        ("workflow_run", Ran, 5),
        ("status", Checked, 4),
        ("deployment_status", Deployed, 4),
        ("installation", InstallationChanged, 7),
        ("installation_repositories", InstallationChanged, 3),
        ("repository", RepositoryChanged, 5),
        ("ping", Pinged, 4),
    ],
)
def test_the_examples_of_what_is_taken_in_become_what_the_table_says(
    event: str, kind: type, least: int
) -> None:
    made = [read(event, payload).news for name, payload in examples() if name == event]
    kinds = [type(news[0].what) for news in made if news]
    assert set(kinds) == {kind}
    assert len(kinds) >= least


def test_every_event_and_action_that_github_publishes_has_a_row_of_its_own() -> None:
    assert len(published()) > 250
    unknown = {
        (event, action)
        for event, action in published()
        if (rule := rule_for(event, action)) is None or "do not know" in rule.says
    }
    assert not unknown


def test_the_page_shows_the_rows_of_the_table() -> None:
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert shown == list(rows())


def rows() -> Iterator[str]:
    """The lines of the page's table: actions that come one after another with the same row share a line."""
    gathered: dict[tuple[str, str], list[str]] = {}
    for (event, action), rule in TABLE.items():
        says = rule.says if rule.read else f"nothing: {rule.says}"
        gathered.setdefault((event, says), []).append(action)
    for (event, says), actions in gathered.items():
        alone = (event, ANY) in TABLE and sum(name == event for name, _ in TABLE) == 1
        names = "" if alone else ", ".join("any other" if one == ANY else f"`{one}`" for one in actions)
        yield f"| `{event}` | {names} | {says} |"


def test_a_push_names_branch_commits_and_who_pushed() -> None:
    payload: dict[str, Any] = example("push", place=4) | {
        "forced": True,
        "before": "a" * 40,
        "after": "b" * 40,
    }
    pushed = what("push", payload)
    assert pushed == Pushed(
        branch="master", before="a" * 40, after="b" * 40, default=True, forced=True, author="Codertocat"
    )
    pushed = what("push", payload | {"ref": "refs/heads/feat/a b", "before": "0" * 64, "created": True})
    assert (pushed.branch, pushed.before, pushed.default) == ("feat/a b", NO_COMMIT, False)
    assert what("push", payload | {"after": "0" * 40, "deleted": True}).after == NO_COMMIT
    queue = payload | {"ref": "refs/heads/gh-readonly-queue/main/pr-7-abc"}
    assert "merge queue" in read("push", queue).ignored


@pytest.mark.parametrize(
    ("action", "merged", "became"),
    [
        ("opened", False, PullAction.OPENED),
        ("synchronize", False, PullAction.UPDATED),
        ("ready_for_review", False, PullAction.READY),
        ("reopened", False, PullAction.REOPENED),
        ("edited", False, PullAction.EDITED),
        ("closed", False, PullAction.CLOSED),
        ("closed", True, PullAction.MERGED),
        ("converted_to_draft", False, PullAction.OTHER),
        ("labeled", False, PullAction.OTHER),
    ],
)
def test_the_actions_of_a_pull_request_are_told_apart(action: str, merged: bool, became: PullAction) -> None:
    payload: dict[str, Any] = example("pull_request", "opened") | {"action": action}
    payload["pull_request"]["merged"] = merged
    changed = what("pull_request", payload)
    assert changed.action is became
    assert changed.updated_at == datetime(2019, 5, 15, 15, 20, 33, tzinfo=UTC)
    assert not changed.fork


def test_a_pull_request_whose_fork_was_deleted_is_still_one_of_a_fork() -> None:
    payload = example("pull_request", "opened")
    payload["pull_request"]["head"]["repo"] = None
    assert what("pull_request", payload).fork
    payload = example("pull_request", "opened")
    payload["pull_request"]["head"]["repo"]["id"] = 5
    assert what("pull_request", payload).fork


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("approved", "approve"), ("changes_requested", "request_changes"), ("COMMENTED", "comment")],
)
def test_a_review_is_news_and_its_words_are_a_comment(state: str, verdict: str) -> None:
    payload = example("pull_request_review", "submitted")
    payload["review"] |= {"state": state, "body": "@codespar fix this", "id": 7}
    delivered = read("pull_request_review", payload)
    assert delivered.news[0].what == Reviewed(
        number=2, author="Codertocat", verdict=verdict, id="pullrequestreview-7"
    )
    assert delivered.comment is not None
    assert (delivered.comment.id, delivered.comment.number) == ("pullrequestreview-7", 2)
    payload["review"]["body"] = "  \n"
    assert read("pull_request_review", payload).comment is None
    payload["review"]["state"] = "pending"
    assert "not handed in" in read("pull_request_review", payload).ignored


def test_a_comment_says_who_wrote_it_where_and_whether_a_program_did() -> None:
    payload = example("issue_comment", "created")
    comment = read("issue_comment", payload).comment
    assert comment is not None
    assert (comment.id, comment.number, comment.author, comment.author_id) == (
        "issuecomment-492700400",
        1,
        "Codertocat",
        "21031067",
    )
    assert not comment.bot and comment.path is None and not comment.edited
    payload["comment"]["user"]["type"] = "Bot"
    assert (read("issue_comment", payload).comment or comment).bot
    line = example("pull_request_review_comment", "created")
    on_line = read("pull_request_review_comment", line)
    assert on_line.comment is not None and on_line.comment.path == "README.md"
    assert on_line.comment.id == "discussion_r284312630"
    assert what("pull_request_review_comment", line).id == on_line.comment.id


def test_a_run_keeps_its_id_over_attempts_and_its_conclusion_only_when_it_has_ended() -> None:
    payload = example("workflow_run", "completed", 1)
    payload["workflow_run"] |= {"run_attempt": 2, "conclusion": "failure", "name": "CI"}
    run = what("workflow_run", payload).run
    assert (run.id, run.attempt, run.workflow, run.conclusion) == ("289782451", 2, "CI", Conclusion.FAILURE)
    payload["action"] = "in_progress"
    payload["workflow_run"] |= {"status": "in_progress"}
    assert what("workflow_run", payload).run.conclusion is None
    payload["workflow_run"] |= {"status": "completed", "conclusion": "a_word_of_next_year"}
    assert what("workflow_run", payload).run.conclusion is Conclusion.NEUTRAL


@pytest.mark.parametrize("without", [(), ("updated_at",), ("run_attempt",), ("status", "run_started_at")])
@pytest.mark.parametrize("status", ["completed", "in_progress", "queued", "", None, 5])
@pytest.mark.parametrize("event", ["workflow_run", "check_run"])
def test_what_is_told_to_have_completed_has_whatever_status_stands_beside_its_conclusion(
    event: str, status: object, without: tuple[str, ...]
) -> None:
    payload = example(event, "completed")
    payload[event] |= {"status": status, "conclusion": "failure"}
    payload[event] = {key: value for key, value in payload[event].items() if key not in without}
    if event == "check_run":
        payload[event]["app"]["slug"] = "octocoders-linter"
    assert what(event, payload).run.conclusion is Conclusion.FAILURE


def test_githubs_own_examples_of_an_end_with_a_conclusion_are_no_runs_under_way() -> None:
    ends = [copy.deepcopy(one) for name, one in examples() if name == "workflow_run"]
    queued = [
        one for one in ends if (one["action"], one["workflow_run"]["status"]) == ("completed", "queued")
    ]
    assert queued, "GitHub says so itself"
    for one in ends:
        one["workflow_run"]["conclusion"] = "failure"
        if one["action"] == "completed":
            assert what("workflow_run", one).run.conclusion is Conclusion.FAILURE
    bare = {"id": 5, "head_sha": "a" * 40, "head_branch": "main", "name": "tests"}
    for more in ({}, {"conclusion": None}, {"status": "completed"}):
        made = {"action": "completed", "workflow_run": bare | more}
        assert what("workflow_run", made).run.conclusion is Conclusion.NEUTRAL


def test_the_main_branch_of_a_fork_is_not_taken_for_ours() -> None:
    payload = example("workflow_run", "completed", 1)
    payload["workflow_run"] |= {"head_branch": "main", "event": "pull_request"}
    payload["workflow_run"]["head_repository"] |= {"id": 99, "owner": {"login": "mallory"}}
    assert what("workflow_run", payload).run.branch == "mallory:main"
    payload["workflow_run"]["head_repository"] = None
    assert what("workflow_run", payload).run.branch == "unknown:main"


def test_pull_requests_of_other_repositories_are_not_a_runs() -> None:
    payload = example("workflow_run", "completed", 2)
    ours = payload["repository"]["id"]
    reference = payload["workflow_run"]["pull_requests"][0]
    theirs = json.loads(json.dumps(reference)) | {"number": 3}
    theirs["base"]["repo"]["id"] = ours + 1
    reference["base"]["repo"]["id"] = ours
    payload["workflow_run"]["pull_requests"] = [theirs, reference]
    assert what("workflow_run", payload).run.pulls == (2,)


def test_a_job_of_github_actions_is_left_to_the_run_and_another_apps_check_is_not() -> None:
    payload = example("check_run", "completed")
    payload["check_run"]["app"]["slug"] = "github-actions"
    assert "workflow_run" in read("check_run", payload).ignored
    payload["check_run"]["app"]["slug"] = "octocoders-linter"
    first = what("check_run", payload).run
    again = example("check_run", "completed")
    again["check_run"] |= {"id": 5, "conclusion": "failure", "completed_at": "2019-05-15T16:00:00Z"}
    again["check_run"]["app"]["slug"] = "octocoders-linter"
    later = what("check_run", again).run
    assert first.id == later.id and first.attempt == later.attempt == 1
    assert first.updated_at < later.updated_at
    assert later.conclusion is Conclusion.FAILURE
    assert later.workflow == "Octocoders-linter" and later.branch == "changes"


@pytest.mark.parametrize(
    ("state", "conclusion"),
    [
        ("success", Conclusion.SUCCESS),
        ("failure", Conclusion.FAILURE),
        ("error", Conclusion.FAILURE),
        ("pending", None),
    ],
)
def test_a_status_is_a_check_named_by_its_context(state: str, conclusion: Conclusion | None) -> None:
    payload: dict[str, Any] = example("status") | {"state": state, "context": "ci/jenkins"}
    tip = payload["branches"][1]["commit"]["sha"]
    run = what("status", payload | {"sha": tip}).run
    assert (run.workflow, run.conclusion, run.commit) == ("ci/jenkins", conclusion, tip)
    assert run.branch == "changes"  # whose newest commit it is
    assert what("status", payload).run.branch == "master"  # of several that contain it, the default one


def test_a_repository_under_a_new_name_or_owner_is_known_by_its_id() -> None:
    renamed = read("repository", example("repository", "renamed"))
    assert renamed.repository_id == 186853261
    assert isinstance(renamed.news[0].what, RepositoryChanged)
    assert renamed.news[0].what.old.endswith("/Hello-World")
    moved = what("repository", example("repository", "transferred"))
    assert moved.action == "transferred" and moved.old == "octocat/Hello-World" and moved.new != moved.old
    default = [
        x for x in (example("repository", "edited", i) for i in (0, 1)) if "default_branch" in x["changes"]
    ]
    assert what("repository", default[0]).action == "default_branch"
    assert what("repository", default[0]).old == "main"
    for action in ("archived", "unarchived", "deleted"):
        assert what("repository", example("repository", "renamed") | {"action": action}).action == action


def test_what_an_installation_lost_is_named() -> None:
    lost = what("installation_repositories", example("installation_repositories", "removed"))
    assert lost.action == "removed" and lost.repositories == ("octocat/Hello-World",)
    suspended = what("installation", example("installation", "suspend"))
    assert suspended.action == "suspended" and suspended.repositories == ()
    nothing = example("installation_repositories", "removed") | {"repositories_removed": []}
    assert read("installation_repositories", nothing).ignored  # else it would mean all of them


def test_an_event_or_action_that_github_adds_later_is_passed_over_and_said_so() -> None:
    assert "no event that we know" in read("quantum_merge", {"action": "entangled"}).ignored
    later = example("pull_request", "opened") | {"action": "levitated"}
    assert "do not know" in read("pull_request", later).ignored


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("push", []),
        ("push", "text"),
        ("push", None),
        ("push", {}),
        ("push", {"ref": "refs/heads/main"}),
        ("push", {"ref": "refs/heads/", "after": "a" * 40}),
        ("pull_request", {}),
        ("pull_request", {"action": "opened"}),
        ("pull_request", {"action": "opened", "pull_request": {"number": -4, "head": {"sha": "a"}}}),
        ("pull_request_review", {"action": "submitted", "review": {"state": "approved"}}),
        ("issue_comment", {"action": "created", "comment": {"body": "x"}}),
        ("workflow_run", {"action": "completed", "workflow_run": {"id": 5}}),
        ("check_run", {"action": "completed"}),
        ("status", {"sha": "a" * 40}),
        ("deployment_status", {"action": "created"}),
        ("installation", {"action": "deleted"}),
        ("repository", {"action": "renamed", "repository": {"full_name": "a/b"}}),
        (
            "repository",
            {"action": "transferred", "repository": {"full_name": "a/b"}, "changes": {"owner": 5}},
        ),
    ],
)
def test_a_payload_without_what_its_event_must_have_is_malformed(event: str, payload: Any) -> None:
    with pytest.raises(Malformed):
        read(event, payload)


def test_a_delivery_without_a_name_is_malformed() -> None:
    for guid in ("", "x" * 191):
        with pytest.raises(Malformed, match="X-GitHub-Delivery"):
            normalize("ping", guid, {}, NOW)


def test_text_that_a_database_refuses_is_cleaned_and_a_time_that_has_no_utc_is_ours() -> None:
    payload = example("pull_request", "opened")
    payload["pull_request"] |= {"title": "a\0b\ud800", "updated_at": "9999-12-31T23:59:59-23:00"}
    changed = what("pull_request", payload)
    assert "\0" not in changed.title and changed.updated_at == NOW
    changed.model_dump_json().encode()


@cache
def taken() -> list[tuple[str, dict[str, Any]]]:
    """The examples from which something follows: the first two of each event and action."""
    kinds: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for event, payload in examples():
        delivered = read(event, payload)
        if delivered.news or delivered.comment:
            kinds.setdefault((event, payload.get("action", "")), []).append((event, payload))
    return [one for kind in kinds.values() for one in kind[:2]]


ODD = [
    None,
    "",
    0,
    -1,
    1e300,
    10**30,
    True,
    [],
    {},
    [None],
    {"a": 1},
    "x\0\ud800",
    "2019-05-15",
    [{}],
    "A" * 5000,
]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a payload, as keys one after another."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*way, key)
        yield from places(item, (*way, key))


@settings(deadline=None)
@given(st.data())
def test_no_field_that_is_missing_or_odd_raises_anything_but_malformed(data: st.DataObject) -> None:
    event, payload = data.draw(st.sampled_from(taken()))
    damaged = json.loads(json.dumps(payload))
    ways = list(places(payload))
    for way in data.draw(st.lists(st.sampled_from(ways), min_size=1, max_size=4)):
        spot: Any = damaged
        try:
            for key in way[:-1]:
                spot = spot[key]
            if data.draw(st.booleans()):
                del spot[way[-1]]
            else:
                spot[way[-1]] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier damage took it away
    with contextlib.suppress(Malformed):
        read(event, damaged).model_dump_json()


def test_no_single_field_of_what_we_read_raises_anything_but_malformed_when_it_is_missing_or_null() -> None:
    read_in = set(read_fields())
    tried = 0
    seen: set[tuple[Any, ...]] = set()
    for event, payload in taken():
        for way in places(payload):
            if (event, *way) in seen or not all(isinstance(k, int) or k in read_in for k in way):
                continue
            seen.add((event, *way))
            for missing in (True, False):
                damaged = json.loads(json.dumps(payload))
                spot: Any = damaged
                for key in way[:-1]:
                    spot = spot[key]
                if missing:
                    del spot[way[-1]]
                else:
                    spot[way[-1]] = None
                tried += 1
                try:
                    read(event, damaged)
                except Malformed as error:
                    assert event in str(error)
    assert tried > 1000


def read_fields() -> Iterator[str]:
    """The names of all fields that our models have."""
    import codespar.forges.github.models as models

    for value in vars(models).values():
        if isinstance(value, type) and issubclass(value, models.Loose):
            for name, field in value.model_fields.items():
                yield field.alias or name
