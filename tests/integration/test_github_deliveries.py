"""What GitHub's webhooks bring to the projects they are of: believed by their signature, kept once, and refused with a reason.

The payloads are GitHub's published examples; the server is in this process, and its code host is emulate with git over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from codespar.app.webhooks import accept_news
from codespar.domain.happenings import NO_COMMIT, News, Pinged
from codespar.store.database import Database
from codespar.web.base import MAX_WEBHOOK_BODY
from support.agency import AT
from support.github.emulate import BOT_TOKEN, Emulate
from support.github.linked import (
    NUMBERS,
    SECRET,
    Given,
    comment_by,
    installation,
    linked,
    pull_opened,
    refusal,
)
from support.github.site import Site
from support.repositories import commit, git, repository


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    with Emulate(tmp_path_factory.mktemp("github")) as running:
        yield running


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("seed") / "bare", {"src/app.py": "x = 1\n"})


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESPAR_GITHUB_TOKEN", BOT_TOKEN)
    monkeypatch.setenv("CODESPAR_GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("SECRET_OF_OTHER", "the secret of the project other")


@pytest.fixture
async def site(host: Emulate) -> AsyncIterator[Site]:
    async with Site(host).running() as running:
        yield running


@pytest.fixture
async def given(site: Site, seed: Path, tmp_path: Path) -> AsyncIterator[Given]:
    async with linked(site, seed, tmp_path) as made:
        yield made


# webhooks: what they bring


async def test_a_push_is_recorded_and_the_index_follows_it(given: Given) -> None:
    before = git("rev-parse", "main", cwd=given.github.bare)
    after = await asyncio.to_thread(commit, given.github.bare, {"src/newest.py": "def brand_new(): ...\n"})
    payload = given.payload("push", ref="refs/heads/main", before=before, after=after, deleted=False)
    answer = await given.send("push", payload)
    assert (answer.status_code, answer.json()) == (202, {"accepted": True, "new": True})
    await given.quiet()
    [entry] = await given.audit("pushed")
    assert (entry["subject"], entry["detail"]["after"]) == ("main", after)
    await given.team.until(lambda: "shop" not in given.team.app.follower._running)
    hits = await given.team.app.index("shop").search("brand_new")
    assert [hit.path for hit in hits] == ["src/newest.py"]
    await given.looked()
    assert len(await given.audit("pushed")) == 1, "a look finds it too, and it is not recorded again"


async def test_a_run_that_failed_is_how_the_branch_stands(given: Given) -> None:
    sha = git("rev-parse", "main", cwd=given.github.bare)
    payload = given.payload("workflow_run", "completed")
    payload["workflow_run"] |= given.site.run(71, sha, "failure")
    assert (await given.send("workflow_run", payload)).json()["new"]
    await given.quiet()
    [standing] = await given.team.app.store.read(lambda unit: unit.standings("shop"))
    assert standing.broken_by is not None
    assert (standing.workflow, standing.branch, standing.broken_by.commit) == ("tests", "main", sha)


@pytest.mark.parametrize(
    ("level", "told", "begun", "suggested"), [(0, 0, 0, 0), (1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 0)]
)
async def test_a_pull_request_is_told_suggested_or_reviewed_as_autonomy_goes_and_once(
    site: Site, seed: Path, tmp_path: Path, level: int, told: int, begun: int, suggested: int
) -> None:
    async with linked(site, seed, tmp_path, project={"autonomy": level}) as given:
        assert (await given.send("pull_request", pull_opened(given))).json()["new"]
        again = pull_opened(given, updated_at="2026-11-20T10:00:00Z")
        again["action"] = "reopened"
        assert (await given.send("pull_request", again)).json()["new"], "the same head, once more"
        await given.settle()
        reviews = await given.team.app.store.read(lambda unit: unit.reviews("shop"))
        assert [(one.number, one.head_commit) for one in reviews] == [(5, "a" * 40)] * begun
        assert len(given.told("PR #5 opened: feat: a person")) == told
        assert len([one for one in given.slack.seen(None) if "Approve" in one.buttons]) == suggested


async def test_who_is_known_is_answered_once_at_the_pull_request(given: Given) -> None:
    await given.site.as_ada(given.github, "POST", "/issues", {"title": "a place to talk"})
    payload = comment_by(given, "Hello\n\n@codespar status")
    payload["issue"]["number"] = 1
    assert (await given.send("issue_comment", payload)).json()["new"]

    async def comments() -> list[Any]:
        return await given.site.as_ada(given.github, "GET", "/issues/1/comments")

    async with asyncio.timeout(60):
        while not (said := await comments()):  # noqa: ASYNC110 - GitHub is asked
            await asyncio.sleep(0.05)
    assert "shop" in said[0]["body"]
    assert (await given.send("issue_comment", payload)).json() == {"accepted": True, "new": False}
    stranger = comment_by(given, "@codespar status", 556, user={"login": "eve", "id": 66, "type": "User"})
    assert not (await given.send("issue_comment", stranger)).json()["new"]
    robot = comment_by(
        given, "@codespar status", 557, user={"login": "ada[bot]", "id": int(given.site.ada), "type": "Bot"}
    )
    assert not (await given.send("issue_comment", robot)).json()["new"]
    await given.settle()
    assert len(await comments()) == 1
    assert await given.heard() == ["status"]


# webhooks: what is refused


UNSIGNED: dict[str, tuple[dict[str, bytes | None], str]] = {
    "none": ({"X-Hub-Signature-256": None}, "no X-Hub-Signature-256"),
    "another secret": ({"X-Hub-Signature-256": b"sha256=" + b"0" * 64}, "does not fit the body"),
    "no hexadecimal": ({"X-Hub-Signature-256": "sha256=ü".encode()}, "does not fit the body"),
    "sha1 only": ({"X-Hub-Signature-256": None, "X-Hub-Signature": b"sha1=" + b"0" * 40}, "SHA-1"),
}
UNREADABLE: list[tuple[str, bytes, dict[str, bytes | None], str]] = [
    ("push", b"{", {}, "malformed"),
    ("push", b"[]", {}, "malformed"),
    ("push", b"\xff\xfe", {}, "malformed"),
    ("push", b"[" * 100_000, {}, "malformed"),
    ("push", b'{"ref": 5}', {}, "malformed"),
    ("issues", b"{}", {}, "malformed"),
    ("push", b"payload=%7B%7D", {"Content-Type": b"application/x-www-form-urlencoded"}, "malformed"),
    ("push", b"{}", {"X-GitHub-Delivery": None}, "no_delivery_id"),
    ("push", b"{}", {"X-GitHub-Delivery": b"x" * 101}, "no_delivery_id"),
    ("../push", b"{}", {}, "no_delivery_id"),
]


async def test_what_is_not_signed_or_cannot_be_read_is_refused_and_not_kept(given: Given) -> None:
    for kind, (headers, says) in UNSIGNED.items():
        answer = await given.send("pull_request", pull_opened(given), headers=headers)
        assert refusal(answer) == (401, "bad_signature"), kind
        assert says in answer.json()["error"]["message"], kind
    for event, body, headers, code in UNREADABLE:
        answer = await given.send(event, body, headers=headers)
        assert refusal(answer) == (400, code), (event, body[:20], answer.text)
    assert await given.news() == []


async def test_the_same_said_again_under_its_own_id_or_another_changes_nothing(given: Given) -> None:
    payload = pull_opened(given)
    answers = [
        (await given.send("pull_request", payload, delivery=id)).json() for id in ("one", "one", "replayed")
    ]
    assert [answer["new"] for answer in answers] == [True, False, False]
    assert len(await given.news()) == 1


async def test_a_body_beyond_what_github_sends_is_refused(given: Given) -> None:
    assert refusal(await given.send("push", b" " * (MAX_WEBHOOK_BODY + 1))) == (413, "too_large")
    padded = json.dumps(pull_opened(given)).encode()
    assert (await given.send("pull_request", padded + b" " * (MAX_WEBHOOK_BODY - len(padded)))).json()["new"]


async def test_words_that_no_database_takes_end_nothing(given: Given) -> None:
    odd = pull_opened(given, title="a\x00b \ud800 c")
    answer = await given.send("pull_request", odd)
    assert answer.status_code in (202, 400), answer.text
    assert (await given.send("pull_request", pull_opened(given, "b" * 40))).json()["new"]
    await given.settle()
    assert given.told("PR #5 opened")


async def test_a_projects_own_secret_speaks_for_that_project_alone(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    other = await asyncio.to_thread(site.host.repository, f"other-{next(NUMBERS)}", seed)
    second = {"name": "other", "repository": other.full_name, "webhook_secret_env": "SECRET_OF_OTHER"}
    async with linked(site, seed, tmp_path, second) as given:
        of_other = os.environ["SECRET_OF_OTHER"]
        answer = await given.send("pull_request", pull_opened(given), secret=of_other)
        assert refusal(answer) == (401, "bad_signature")
        about = await site.as_ada(other, "GET", "")
        payload = pull_opened(given)
        payload["repository"] |= {"full_name": other.full_name, "id": about["id"]}
        assert refusal(await given.send("pull_request", payload)) == (401, "bad_signature"), (
            "nor the common one"
        )
        assert (await given.send("pull_request", payload, secret=of_other)).json()["new"]
        assert (await given.news(), len(await given.news("other"))) == ([], 1)


async def test_two_projects_of_one_repository_each_hear_of_it_and_a_comment_is_answered_once(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    name = f"acme/shop-{next(NUMBERS) + 1}"  # the one that `linked` makes
    twin = {"name": "twin", "repository": name.title().replace("Acme", "acme").replace("Shop", "SHOP")}
    own = {"name": "own", "repository": name, "webhook_secret_env": "SECRET_OF_OTHER"}
    next_number = name.rpartition("-")[2]
    async with linked(site, seed, tmp_path, twin, own) as given:
        assert given.github.full_name.endswith(next_number)
        assert (await given.send("pull_request", pull_opened(given))).json()["new"]
        assert [len(await given.news(project)) for project in ("shop", "twin", "own")] == [1, 1, 0]
        assert (await given.send("issue_comment", comment_by(given, "@codespar status"))).json()[
            "new"
        ] is False, "the conversation is the project's that was linked last, which has a secret of its own"
        of_own = os.environ["SECRET_OF_OTHER"]
        assert (
            await given.send("issue_comment", comment_by(given, "@codespar status"), secret=of_own)
        ).json()["new"]
        await given.settle()
        assert await given.heard() == ["status"]


async def test_an_unlinked_repository_is_told_what_to_do_and_nothing_is_kept(given: Given) -> None:
    payload = given.payload("pull_request", "opened")
    payload["repository"] |= {"full_name": "acme/unheard-of", "id": 4711}
    answer = await given.send("pull_request", payload)
    assert answer.status_code == 202
    told = "no project is linked to acme/unheard-of; `codespar link acme/unheard-of` links it"
    assert answer.json() == {"accepted": False, "ignored": told}
    assert await given.news() == []


async def test_an_event_that_we_do_not_know_is_accepted_and_says_why_nothing_follows(given: Given) -> None:
    answer = await given.send("quantum_merge", given.payload("ping"))
    assert (answer.status_code, answer.json()["ignored"]) == (202, "`quantum_merge` is no event that we know")
    answer = await given.send("star", given.payload("star", "created"))
    assert answer.json()["ignored"] == "nothing that happens to the code"
    assert await given.news() == []


async def test_what_is_not_committed_is_not_acknowledged(given: Given) -> None:
    await given.team.app.store.close()
    news = await given.send("pull_request", pull_opened(given))
    comment = await given.send("issue_comment", comment_by(given, "@codespar status"))
    assert [refusal(news), refusal(comment)] == [(503, "not_kept")] * 2


# what becomes of a repository


async def test_a_repository_that_was_renamed_is_known_by_its_id(given: Given) -> None:
    payload = given.payload("repository", "renamed")
    payload["repository"] |= {"full_name": "acme/new-name", "name": "new-name"}
    payload["changes"] = {"repository": {"name": {"from": given.github.full_name.partition("/")[2]}}}
    assert (await given.send("repository", payload)).json()["new"]
    await given.settle()
    [told] = given.told("The repository is called acme/new-name now")
    assert "write `repository: acme/new-name` into codespar.yaml" in told
    later = pull_opened(given)
    later["repository"] |= {"full_name": "acme/new-name"}
    assert (await given.send("pull_request", later)).json()["new"]
    anothers = pull_opened(given, "b" * 40)
    anothers["repository"] |= {"id": 4711}
    assert not (await given.send("pull_request", anothers)).json()["accepted"], (
        "its old name is another's now"
    )


async def test_a_rename_reaches_a_project_whose_id_nobody_knows_yet(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    async with linked(site, seed, tmp_path) as given:
        given.team.app.hosts._linked.ids.clear()
        payload = given.payload("repository", "renamed")
        payload["repository"] |= {"full_name": "acme/new-name", "id": 31}
        payload["changes"] = {"repository": {"name": {"from": given.github.full_name.partition("/")[2]}}}
        assert (await given.send("repository", payload)).json()["new"]
        await given.settle()
        assert given.told("The repository is called acme/new-name now")


async def test_a_suspended_installation_is_told_once_whoever_finds_it_first(given: Given) -> None:
    suspended = installation(given, "suspend")
    given.site.revoked = True
    assert (await given.send("installation", suspended, delivery="one")).json()["new"]
    await given.quiet()
    await given.team.app.hosts.look("shop")
    await given.send("installation", suspended | {"again": True}, delivery="two")
    await given.settle()
    assert len(given.told("❌")) == 1
    assert given.told("The GitHub App's installation was suspended")
    assert len(await given.audit("access.suspended", "forge.lost")) == 1


async def test_when_it_works_again_that_is_told_once(given: Given) -> None:
    await given.send("installation", installation(given, "suspend"))
    await given.settle()
    await given.send("installation", installation(given, "unsuspend"))
    await given.settle()
    await given.looked()
    await given.settle()
    assert len(given.told("❌")) == 1
    assert len(given.told("✅")) == 1


async def test_a_deleted_repository_is_told_once_and_looking_goes_on_quietly(given: Given) -> None:
    payload = given.payload("repository", "edited") | {"action": "deleted"}
    given.site.gone = given.github.full_name
    assert (await given.send("repository", payload)).json()["new"]
    await given.settle()
    for _ in range(3):
        await given.looked()
    await given.settle()
    assert [len(given.told("The repository was deleted")), len(given.told("❌")), len(given.told("✅"))] == [
        1,
        0,
        0,
    ]


async def test_news_whose_long_names_differ_at_their_end_alone_are_all_kept(tmp_path: Path) -> None:
    store = Database(f"sqlite:///{tmp_path / 'codespar.sqlite'}")
    await store.open()
    project, context = "payments-gateway-of-the-old-bank", "c" * 100
    told = [
        News(
            delivery=f"status:{NO_COMMIT}:{context}:failure:2026-11-21T10:{minute}:00Z",
            repository="acme/shop",
            at=AT,
            what=Pinged(hook="1"),
        )
        for minute in (10, 20, 20)
    ]
    assert [await store.write(lambda unit, one=one: accept_news(unit, project, one)) for one in told] == [
        True,
        True,
        False,
    ]
    await store.close()
