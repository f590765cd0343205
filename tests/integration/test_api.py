"""The HTTP API of a real server process: who gets in, what they see, what is refused and how, and what nothing may break.

No task runs here: the server is given no container engine.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from codespar.cli.client import Event, SseParser
from codespar.scripted.script import Library
from codespar.web.base import MAX_BODY
from codespar.web.bus import QUEUE
from support.house import House
from support.repositories import repository

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROLES = {
    "owner": "Olga",
    "emergency_admin": "Emil",
    "maintainer": "Mina",
    "operator": "Otto",
    "reviewer": "Rita",
    "read-only": "Rob",
}
TOKENS = {role: f"token-of-{role}-0123456789" for role in ROLES}
VARIABLES = {role: f"TOKEN_{role.upper().replace('-', '_')}" for role in ROLES}
SECRET = "a webhook secret"
SETTINGS: dict[str, Any] = {
    "people": [{"name": name, "role": role, "token_env": VARIABLES[role]} for role, name in ROLES.items()],
    "sandbox": {"docker_host": "unix:///nonexistent/docker.sock"},
}
ENVIRONMENT = {VARIABLES[role]: token for role, token in TOKENS.items()}
UNENDING = aiohttp.ClientTimeout(total=None)  # of a stream: it is read for as long as the test takes
OPEN_PATHS = {"/healthz", "/readyz", "/metrics"}

READS = {
    "/api/v1/version": None,
    "/api/v1/messages": "view_status",
    "/api/v1/projects": "view_status",
    "/api/v1/agents": "view_status",
    "/api/v1/tasks": "view_status",
    "/api/v1/approvals": "view_status",
    "/api/v1/prs": "view_diffs",
    "/api/v1/search?q=hello": "view_diffs",
    "/api/v1/audit": "view_audit",
    "/api/v1/audit/verify": "view_audit",
}
HOLDERS = {
    None: set(ROLES),
    "view_status": set(ROLES),
    "view_diffs": set(ROLES) - {"read-only"},
    "view_audit": {"owner", "emergency_admin", "maintainer"},
    "link_channel": {"owner", "emergency_admin", "maintainer"},
}


class Api:
    """The API over plain HTTP, as any of the people or as nobody."""

    def __init__(self, house: House, session: aiohttp.ClientSession) -> None:
        self.house = house
        self.url = f"http://127.0.0.1:{house.port}"
        self.session = session

    async def ask(
        self, method: str, path: str, *, role: str | None = "owner", token: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Status, body (parsed where it is JSON) and headers of the answer."""
        headers = dict(options.pop("headers", {}))
        given = token if token is not None else TOKENS[role] if role else None
        if given is not None:
            headers.setdefault("Authorization", f"Bearer {given}")
        async with self.session.request(method, self.url + path, headers=headers, **options) as answer:
            content = await answer.read()
            parsed = json.loads(content) if answer.content_type == "application/json" else content.decode()
            return answer.status, parsed, answer.headers

    async def get(self, path: str, role: str | None = "owner", **options: Any) -> Any:
        status, body, _ = await self.ask("GET", path, role=role, **options)
        assert status == 200, body
        return body

    async def refused(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str]]:
        """Status and error of a request that must be refused, in the form every error has."""
        status, body, _ = await self.ask(method, path, **options)
        assert status >= 400, body
        assert set(body) == {"error"} and set(body["error"]) == {"code", "message", "next"}, body
        assert all(isinstance(value, str) for value in body["error"].values())
        assert body["error"]["code"] and body["error"]["message"]
        return status, body["error"]

    async def say(self, text: str, role: str = "owner", **more: str) -> Any:
        status, body, _ = await self.ask(
            "POST", "/api/v1/messages", role=role, json={"content": text, "project": "one", **more}
        )
        assert status == 200, body
        return body

    @asynccontextmanager
    async def listen(
        self, role: str = "owner", cursor: str | None = None, query: str = ""
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """The events, once the server has said that it listens."""
        headers = {"Authorization": f"Bearer {TOKENS[role]}"} | ({"Last-Event-ID": cursor} if cursor else {})
        url = f"{self.url}/api/v1/events{query}"
        async with self.session.get(url, headers=headers, timeout=UNENDING) as answer:
            assert answer.status == 200 and answer.content_type == "text/event-stream"
            yield _events(answer)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    parser = SseParser()
    async for chunk in answer.content.iter_any():
        for event in parser.feed(chunk):
            yield event


async def until_ping(events: AsyncIterator[Event]) -> list[Event]:
    """What comes before the first ping: everything that was missed."""
    found: list[Event] = []
    async with asyncio.timeout(60):
        async for event in events:
            if event.kind == "ping":
                return found
            found.append(event)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    chosen = dict(SETTINGS)
    if request.param == "postgresql":
        chosen["database_url"] = request.getfixturevalue("postgres_module_database")
    environment = ENVIRONMENT | {"CODESPAR_WEBHOOK_SECRET_CI_SYSTEM": SECRET}
    async with House(folder, Library({}), settings=chosen, environment=environment) as house:
        await house.link("one", repository(folder / "one.git"))
        yield house
        assert "Traceback" not in house.log, house.log[-5000:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(house: House) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield Api(house, session)


# who gets in


@pytest.mark.parametrize("path", [*READS, "/api/v1/events", "/api/v1/tasks/task-abc123", "/api/v1/prs/one/1"])
@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKENS['owner']}",
        TOKENS["owner"],
        "Bearer \xe9",
    ],
    ids=repr,
)
async def test_no_route_of_the_api_answers_without_a_right_token(
    api: Api, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"Authorization": given}
    status, error = await api.refused("GET", path, role=None, headers=headers)
    assert (status, error["code"]) == (401, "unauthorized") and "cli-token" in error["next"]


@pytest.mark.parametrize("path", READS)
async def test_every_route_shows_each_role_what_it_may_see(api: Api, path: str) -> None:
    for role in ROLES:
        status, body, _ = await api.ask("GET", path, role=role)
        able = HOLDERS[READS[path]]
        assert status == (200 if role in able else 403), (role, body)
        if status == 403:
            assert body["error"]["code"] == "forbidden" and ROLES[role] in body["error"]["message"]
            assert set(body["error"]["next"].removeprefix("ask one of: ").split(", ")) == able


async def test_a_token_names_its_person(api: Api) -> None:
    for role, name in ROLES.items():
        found = await api.get("/api/v1/version", role)
        assert (found["person"], found["role"], found["id"]) == (name, role, name.lower())
    _, body, _ = await api.ask(
        "GET", "/api/v1/version", headers={"authorization": f"bearer {TOKENS['owner']}"}
    )
    assert body["person"] == "Olga", "the scheme's case does not matter"


async def test_no_operation_of_the_schema_answers_without_authentication(api: Api) -> None:
    schema = await api.get("/openapi.json", None)
    before = await api.get("/api/v1/audit?limit=1000"), await api.get("/api/v1/projects")
    bodies = {
        "/api/v1/messages": {"content": "help"},
        "/api/v1/projects": {"name": "two", "repository": "/tmp"},
    }
    tried = 0
    for path, operations in schema["paths"].items():
        filled = path.replace("{number}", "1").replace("{project}", "one").replace("{task_id}", "task-1")
        filled = filled.replace("{source}", "ci-system")
        for method in operations:
            tried += 1
            status, body, headers = await api.ask(
                method.upper(), filled + "?q=x", role=None, json=bodies.get(path, {})
            )
            if path.startswith("/channels/"):
                assert status == 404, (
                    "no chat platform is set up here; each one's own tests send it forgeries"
                )
                continue
            if path in OPEN_PATHS:
                assert status == 200
                continue
            assert status == 401, (method, path, body)
            if path.startswith("/api"):
                assert headers["WWW-Authenticate"] == "Bearer"
    assert tried >= 18
    assert before == (await api.get("/api/v1/audit?limit=1000"), await api.get("/api/v1/projects"))


async def test_whether_a_message_is_well_formed_is_told_to_known_people_only(api: Api) -> None:
    assert (await api.refused("POST", "/api/v1/messages", role=None, json={"content": ""}))[0] == 401
    assert (await api.refused("POST", "/api/v1/messages", json={"content": ""}))[0] == 422


async def test_who_may_not_link_links_nothing(api: Api, tmp_path: Path) -> None:
    body = {"name": "forbidden", "repository": str(repository(tmp_path / "x.git"))}
    for role in set(ROLES) - HOLDERS["link_channel"]:
        assert (await api.refused("POST", "/api/v1/projects", role=role, json=body))[0] == 403
    assert "forbidden" not in [project["name"] for project in (await api.get("/api/v1/projects"))["projects"]]


async def test_read_only_people_see_no_diffs(api: Api) -> None:
    """Not the routes, not the answers to a command, and not somebody else's answers in the history or live."""
    for path in ("/api/v1/prs", "/api/v1/prs/one/1", "/api/v1/prs/one/1/diff", "/api/v1/search?q=hello"):
        assert (await api.refused("GET", path, role="read-only"))[0] == 403
    async with api.listen("read-only") as live, api.listen("reviewer") as other:
        await until_ping(live)
        await until_ping(other)
        for command in ("search hello", "diff", "prs", "logs"):
            [sent] = (await api.say(command, "read-only"))["responses"]
            assert "is not yours to give" in sent["response"]["title"] and not sent["response"]["blocks"]
        [found] = (await api.say("search hello", thread="shared"))["responses"]
        assert found["response"]["blocks"], "the owner does see it"
        [last] = (await api.say("whoami", thread="shared"))["responses"]
        seen: dict[str, list[str]] = {}
        for who, events in (("read-only", live), ("reviewer", other)):
            seen[who] = []
            async with asyncio.timeout(60):
                async for event in events:
                    if event.kind == "message":
                        seen[who].append(event.data["key"])
                    if seen[who] and seen[who][-1] == last["key"]:
                        break
    assert found["key"] in seen["reviewer"] and found["key"] not in seen["read-only"]
    for role in ("read-only", "reviewer"):
        history = await api.get("/api/v1/messages?thread=cli/one/shared&limit=500", role)
        keys = [sent["key"] for sent in history["messages"]]
        assert last["key"] in keys and (found["key"] in keys) == (role == "reviewer")
    async with api.listen("read-only", cursor="0") as again:
        assert all(not event.data["response"]["blocks"] for event in await until_ping(again))


# bodies


async def test_a_body_over_the_limit_is_refused_whether_it_says_its_size_or_not(api: Api) -> None:
    big = json.dumps({"content": "x" * MAX_BODY}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(big), 16_384):
            yield big[at : at + 16_384]

    kind = {"content-type": "application/json"}
    for path in ("/api/v1/messages", "/api/v1/projects", "/webhooks/ci-system"):
        for data in (big, pieces()):
            status, error = await api.refused("POST", path, data=data, headers=kind)
            assert (status, error["code"]) == (413, "too_large") and str(MAX_BODY) in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"content": 1}',
        b'{"content": ""}',
        b'{"content": "\\ud800"}',
        b"[" * 50_000,
        b'{"content": "help", "surplus": 1}',
        b'{"content": "help", "thread": "a b"}',
        b'{"content": "help", "id": ""}',
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_a_malformed_message_is_refused(api: Api, body: bytes) -> None:
    kind = {"content-type": "application/json"}
    status, error = await api.refused("POST", "/api/v1/messages", data=body, headers=kind)
    assert status in (400, 422), error


# messages


async def test_who_does_not_wait_is_acknowledged_at_once_and_finds_the_answer_later(api: Api) -> None:
    posted = {"content": "whoami", "project": "one", "thread": "later", "wait": False}
    status, body, _ = await api.ask("POST", "/api/v1/messages", json=posted)
    assert status == 202 and body["responses"] == [] and body["messageId"] > 0
    deadline = time.monotonic() + 60
    while not (found := (await api.get("/api/v1/messages", params={"thread": body["thread"]}))["messages"]):
        assert time.monotonic() < deadline, "the answer does not come"
        await asyncio.sleep(0.02)
    assert found[0]["response"]["title"].startswith("📋")


async def test_a_message_sent_twice_is_taken_in_once_and_answered_the_same(api: Api) -> None:
    def counted(page: str) -> float:
        return next(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "codespar_deliveries_total"
        )

    before = counted(await api.get("/metrics", None))
    first = await api.say("whoami", id="same-1", thread="twice")
    again = await asyncio.gather(*(api.say("whoami", id="same-1", thread="twice") for _ in range(5)))
    assert first["responses"] and all(answer == first for answer in again)
    assert counted(await api.get("/metrics", None)) == before + 1
    assert len((await api.get("/api/v1/messages?thread=cli/one/twice"))["messages"]) == 1
    other = await api.say("whoami", "maintainer", id="same-1", thread="twice")
    assert other["messageId"] != first["messageId"], "an id is its person's own"


async def test_simultaneous_repeats_are_taken_in_once(api: Api) -> None:
    answers = await asyncio.gather(*(api.say("help", id="race-1", thread="race") for _ in range(8)))
    assert len({answer["messageId"] for answer in answers}) == 1
    assert all(answer["responses"] == answers[0]["responses"] != [] for answer in answers)


async def test_messages_are_paged_by_cursor_without_gap_or_repeat(api: Api) -> None:
    for _ in range(5):
        await api.say("whoami", thread="pages")
    seen: list[int] = []
    cursor = 0
    while page := (await api.get(f"/api/v1/messages?thread=cli/one/pages&after={cursor}&limit=2")):
        if page["cursor"] == cursor:
            break
        seen += [sent["seq"] for sent in page["messages"]]
        cursor = page["cursor"]
    assert len(seen) == 5 and seen == sorted(set(seen))


async def test_any_text_is_answered_as_it_was_written(api: Api) -> None:
    for text in (
        "\u0000",
        "status\u0000",
        "'; DROP TABLE inbox; --",
        "🦊 <b>\u202e",
        "search \u0000",
        "x" * 32_000,
    ):
        [sent] = (await api.say(text))["responses"]
        assert "could not be handled" not in sent["response"]["title"], text


# projects


async def test_linking_tells_what_is_wrong_and_again_changes_nothing(api: Api, tmp_path: Path) -> None:
    bare = str(repository(tmp_path / "linked.git"))
    body = {"name": "linked", "repository": bare}
    status, made, _ = await api.ask("POST", "/api/v1/projects", role="maintainer", json=body)
    assert (status, made["name"], made["repository"]) == (201, "linked", bare)
    assert (await api.ask("POST", "/api/v1/projects", json=body))[1] == made
    entries = (await api.get("/api/v1/audit?project=linked"))["entries"]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [("Mina", "project.linked")]

    other = {"name": "linked", "repository": str(repository(tmp_path / "other.git"))}
    status, error = await api.refused("POST", "/api/v1/projects", json=other)
    assert status == 409 and bare in error["message"]
    away = {"name": "away", "repository": str(tmp_path / "nothing.git")}
    assert (await api.refused("POST", "/api/v1/projects", json=away))[0] == 422
    nul = {"name": "nul", "repository": "/tmp/\x00"}
    assert (await api.refused("POST", "/api/v1/projects", json=nul))[0] == 422
    for name in ("", "UPPER", "a b", "../x", "-x", "x" * 62):
        bad = {"name": name, "repository": bare}
        assert (await api.refused("POST", "/api/v1/projects", json=bad))[0] == 422

    status, error = await api.refused("POST", "/api/v1/messages", json={"content": "help"})
    assert (status, error["code"]) == (422, "project_needed") and "linked" in error["next"]
    status, error = await api.refused("POST", "/api/v1/messages", json={"content": "help", "project": "x"})
    assert (status, error["code"]) == (404, "no_such_project") and "one of: " in error["next"]
    for path in ("/api/v1/prs?project=x", "/api/v1/search?q=a&project=x", "/api/v1/prs/x/1"):
        assert (await api.refused("GET", path))[1]["code"] == "no_such_project"


# events


async def test_events_go_on_where_a_listener_left(api: Api) -> None:
    async with api.listen() as events:
        await until_ping(events)
        [first] = (await api.say("whoami", thread="left"))["responses"]
        seen = await anext(event async for event in events if event.kind == "message")
    assert seen.id == str(first["seq"]) and seen.data["key"] == first["key"]
    missed = [(await api.say("whoami", thread="left"))["responses"][0]["seq"] for _ in range(3)]
    async with api.listen(cursor=seen.id) as events:
        assert [int(event.id or 0) for event in await until_ping(events)] == missed
        [live] = (await api.say("whoami", thread="left"))["responses"]
        assert (await anext(event async for event in events if event.kind == "message")).id == str(
            live["seq"]
        )
    async with api.listen(query=f"?after={missed[0]}&project=one") as events:
        assert [int(event.id or 0) for event in await until_ping(events)][:2] == missed[1:]
    async with api.listen(query=f"?after={missed[0]}&project=nothing") as events:
        assert await until_ping(events) == []
    async with api.listen() as events:
        assert await until_ping(events) == [], "without a cursor nothing old is sent"


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "²", "9" * 30, "9" * 5000], ids=lambda text: text[:8])
async def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, cursor: str) -> None:
    head = f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['owner']}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", api.house.port)
    writer.write(f"{head}Last-Event-ID: {cursor}\r\nConnection: close\r\n\r\n".encode("latin-1"))
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 422") and b'"bad_cursor"' in answer


async def test_a_listener_that_does_not_read_is_cut_and_misses_nothing(api: Api) -> None:
    """It holds up nobody, is cut once it is too far behind, and finds the rest from its cursor."""
    [made] = (await api.say(f"instruct {'x' * 30_000}"))["responses"]  # makes the answers about it long
    task = made["response"]["agent"]
    await api.house.until(task, "failed")
    sent: list[int] = []
    slowest = 0.0

    async def flood(command: str, posts: int) -> None:
        nonlocal slowest
        for _ in range(posts):
            began = time.monotonic()
            sent.append((await api.say(command, thread="flood"))["responses"][0]["seq"])
            slowest = max(slowest, time.monotonic() - began)

    async with api.listen() as events:
        await until_ping(events)
        await asyncio.gather(
            *(flood(f"status {task}", 40) for _ in range(8))
        )  # fills every buffer on the way
        await asyncio.gather(*(flood("whoami", QUEUE // 12) for _ in range(8)))
        assert slowest < 30, "nobody else waits for it"
        async with asyncio.timeout(60):
            seen = [int(event.id) async for event in events if event.id]
    assert seen and len(seen) < len(sent), "the server ended the stream early"
    assert seen == sorted(sent)[: len(seen)]
    async with api.listen(cursor=str(seen[-1])) as events:
        assert [int(event.id or 0) for event in await until_ping(events)] == sorted(sent)[len(seen) :]


# health


async def test_the_metrics_are_valid_prometheus_text(api: Api) -> None:
    status, page, headers = await api.ask("GET", "/metrics", role=None)
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in text_string_to_metric_families(page)}
    assert {"codespar_build_info", "codespar_deliveries", "codespar_messages"} <= set(found)
    assert all(family.documentation for family in found.values())


async def test_readiness_names_the_process(api: Api) -> None:
    body = await api.get("/readyz", None)
    assert (body["status"], body["pid"]) == ("ready", api.house.pid)
    assert await api.get("/healthz", None) == {"status": "ok"}


# webhooks


def signed(
    body: bytes, *, secret: str = SECRET, at: str | None = None, delivery: str = "d-1"
) -> dict[str, str]:
    stamp = at if at is not None else str(int(time.time()))
    digest = hmac.new(secret.encode(), f"{stamp}.{delivery}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "X-Codespar-Signature": f"sha256={digest}",
        "X-Codespar-Timestamp": stamp,
        "X-Codespar-Delivery": delivery,
    }


async def test_a_signed_delivery_is_taken_in_once(api: Api) -> None:
    for body, delivery in ((b'{"build": 1}', "once-1"), (b"[1, 2]", "once-2")):
        for new in (True, False):
            headers = signed(body, delivery=delivery)
            answer = await api.ask("POST", "/webhooks/ci-system", role=None, data=body, headers=headers)
            assert answer[:2] == (202, {"accepted": True, "new": new})


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"X-Codespar-Signature": ""}, 401, "bad_signature"),
        ({"X-Codespar-Signature": "sha256=00"}, 401, "bad_signature"),
        ({"X-Codespar-Signature": "sha256=\u00e9"}, 401, "bad_signature"),
        ({"X-Codespar-Timestamp": "1"}, 401, "bad_signature"),
        (signed(b"{}", secret="another"), 401, "bad_signature"),
        (signed(b"{ }"), 401, "bad_signature"),
        (signed(b"{}", at=str(int(time.time()) - 400)), 401, "stale"),
        (signed(b"{}", at=str(int(time.time()) + 4000)), 401, "stale"),
        (signed(b"{}", at="soon"), 401, "stale"),
        (signed(b"{}", at=""), 401, "stale"),
        (signed(b"{}", at="9" * 5000), 401, "stale"),
        ({"X-Codespar-Delivery": "another"}, 401, "bad_signature"),
        (lambda: signed(b"{}", delivery=""), 400, "no_delivery_id"),
        (lambda: signed(b"{}", delivery="x" * 191), 400, "no_delivery_id"),
    ],
)
async def test_a_delivery_that_is_not_the_source_s_own_is_refused(
    api: Api, change: dict[str, str] | Callable[[], dict[str, str]], status: int, code: str
) -> None:
    # what must be fresh is signed now, not when the tests were collected
    headers = signed(b"{}", delivery="never") | (change() if callable(change) else change)
    got, error = await api.refused("POST", "/webhooks/ci-system", role=None, data=b"{}", headers=headers)
    assert (got, error["code"]) == (status, code)


@pytest.mark.parametrize(
    "body", [b"", b"build=1", b"\xff\xfe", b"[" * 50_000], ids=lambda body: repr(body[:9])
)
async def test_a_signed_delivery_that_is_not_json_is_refused(api: Api, body: bytes) -> None:
    headers = signed(body, delivery="malformed")
    got, error = await api.refused("POST", "/webhooks/ci-system", role=None, data=body, headers=headers)
    assert (got, error["code"]) == (400, "malformed")


@pytest.mark.parametrize("source", ["github", "ci_system", "CI%20SYSTEM", "x" * 2000, "%ff"])
async def test_a_source_without_a_secret_is_unknown(api: Api, source: str) -> None:
    headers = signed(b"{}", secret="")
    got, error = await api.refused("POST", f"/webhooks/{source}", role=None, data=b"{}", headers=headers)
    assert (got, error["code"]) == (404, "no_such_source")


# errors


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v1/../../etc/passwd", 404, "not_found"),
        ("DELETE", "/api/v1/projects", 405, "method_not_allowed"),
        ("PUT", "/api/v1/messages", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/webhooks/ci-system", 405, "method_not_allowed"),
        ("GET", "/api/v1/tasks/task-nothing", 404, "no_such_task"),
        ("GET", "/api/v1/prs/one/1", 404, "no_such_pull_request"),
        ("GET", "/api/v1/prs/one/1/diff", 404, "no_such_pull_request"),
        ("GET", "/api/v1/prs/one/0", 404, "no_such_pull_request"),
        ("GET", f"/api/v1/prs/one/{'9' * 40}", 404, "no_such_pull_request"),
        ("GET", "/api/v1/prs/one/x", 422, "invalid"),
        ("GET", "/api/v1/prs?project=one&state=odd", 422, "invalid"),
        ("GET", "/api/v1/tasks?limit=0", 422, "invalid"),
        ("GET", "/api/v1/messages?after=-1", 422, "invalid"),
        ("GET", "/api/v1/search", 422, "invalid"),
        ("GET", "/api/v1/tasks/a%00b", 422, "invalid"),
        ("GET", "/api/v1/agents?project=%00", 422, "invalid"),
        ("POST", "/webhooks/x%00", 422, "invalid"),
    ],
)
async def test_errors_have_one_form(api: Api, method: str, path: str, status: int, code: str) -> None:
    got, error = await api.refused(method, path)
    assert (got, error["code"]) == (status, code)
    if code == "method_not_allowed":
        assert "Allow" in (await api.ask(method, path))[2]


WORDS = st.one_of(
    st.sampled_from(
        [
            "one",
            "task-abc123",
            "open",
            "queued",
            "0",
            "1",
            "-1",
            "true",
            "9" * 19,
            "9" * 40,
            "NaN",
            "%",
            "\x00",
        ]
    ),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=30),
)
PLACES = st.sampled_from(
    [
        "messages",
        "projects",
        "agents",
        "tasks",
        "prs",
        "approvals",
        "audit",
        "audit/verify",
        "search",
        "version",
    ]
)
NAMES = st.sampled_from(["q", "project", "state", "status", "limit", "after", "thread", "ended"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACES, query=st.dictionaries(NAMES, WORDS, max_size=4), below=st.none() | WORDS)
async def test_no_query_makes_the_server_fail(
    api: Api, place: str, query: dict[str, str], below: str | None
) -> None:
    from urllib.parse import quote, urlencode

    path = f"/api/v1/{place}" + (f"/{quote(below, safe='')}" if below else "")
    status, body, _ = await api.ask("GET", f"{path}?{urlencode({'q': 'x', 'project': 'one'} | query)}")
    assert status < 500, body
    if status >= 400:
        assert set(body["error"]) == {"code", "message", "next"}
