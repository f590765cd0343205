"""The client of GitHub's API over real sockets, against a strict fake: what is sent, how often, at which pace, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from codespar.forges.base import AccessLost, ForgeError, ForgeUnavailable, Gone
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import AppCredentials, AppKey, TokenCredentials
from codespar.forges.github.errors import CredentialsRefused, Unprocessable
from codespar.forges.github.transport import Credentials
from support.github.api import App, Asked, GithubApi, Says

REPO = "/repos/acme/gateway"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = _KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()
PUBLIC = _KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


class Time:
    """A clock that stands, and that sleeping puts forward instead of waiting."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self.ahead = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self.ahead)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ahead += seconds
        await asyncio.sleep(0)


class Bench:
    def __init__(self, api: GithubApi, time: Time) -> None:
        self.api = api
        self.time = time
        self._clients: list[GithubClient] = []

    def client(self, credentials: Credentials | None = None, **options: Any) -> GithubClient:
        shown = credentials or TokenCredentials(self.api.token, variable="GH_TOKEN", clock=self.time.now)
        given = {"clock": self.time.now, "sleep": self.time.sleep, "write_spacing": 0.0} | options
        client = GithubClient(api_url=self.api.url, credentials=shown, **given)
        self._clients.append(client)
        return client

    def app(self, app: App, *, key: str = PRIVATE, repository: str = "acme/gateway") -> AppCredentials:
        return AppCredentials(
            AppKey(12, key, source="GH_KEY", clock=self.time.now),
            repository,
            client_factory=lambda shown: self.client(shown),
            clock=self.time.now,
        )

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    time = Time()
    async with GithubApi(now=time.now).running() as api:
        bench = Bench(api, time)
        yield bench
        await bench.close()


@pytest.fixture
def app(bench: Bench) -> App:
    return bench.api.app(12, PUBLIC, "acme/gateway")


# Whether our credentials are taken


async def test_a_client_hears_with_each_answer_whether_its_credentials_are_taken(bench: Bench) -> None:
    heard: list[str] = []
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client(heard=heard.append)
    await client.get(REPO)
    await client.get(REPO)
    for status, message in ((404, "Not Found"), (403, "Resource not accessible by integration"), (422, "No")):
        bench.api.on("GET", REPO, Says({"message": message}, status))
        with pytest.raises(ForgeError):
            await client.get(REPO)
    assert heard == ["", ""]
    bench.api.on(
        "GET", REPO, Says({"message": "Although you have credentials, this has an IP allow list"}, 403)
    )
    with pytest.raises(CredentialsRefused):
        await client.get(REPO)
    bench.api.on("GET", REPO, Says({"message": "Bad credentials"}, 401))
    for _ in range(2):  # the second finds that the token was refused, and asks nothing
        with pytest.raises(AccessLost, match="GH_TOKEN"):
            await client.get(REPO)
    assert [bool(one) for one in heard[2:]] == [True] * 3


class Held(TokenCredentials):
    """Lets the first who asks wait until it is told to go on."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.api.token, variable="GH_TOKEN", clock=bench.time.now)
        self.waits, self.goes_on = asyncio.Event(), asyncio.Event()

    async def token(self) -> str:
        if not self.waits.is_set():
            self.waits.set()
            await self.goes_on.wait()
        return await super().token()


async def test_an_answer_to_what_was_asked_before_a_refusal_is_no_sign_that_all_is_well(bench: Bench) -> None:
    heard: list[str] = []
    held = Held(bench)
    client = bench.client(held, heard=heard.append)
    bench.api.on("GET", "/slow", Says({"id": 1}))
    bench.api.on("GET", REPO, Says({"message": "This installation has been suspended"}, 403))
    slow = asyncio.create_task(client.get("/slow"))
    await held.waits.wait()
    with pytest.raises(AccessLost):
        await client.get(REPO)
    held.goes_on.set()
    assert await slow == {"id": 1}
    assert [bool(one) for one in heard] == [True]
    await client.get("/slow")
    assert heard[1:] == [""]


# Asking


async def test_every_request_carries_what_github_asks_for(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client()
    assert await client.get(REPO) == {"id": 1}
    headers = bench.api.requests[0].headers
    assert headers["User-Agent"].startswith("codespar/")
    assert headers["X-GitHub-Api-Version"] == "2022-11-28"
    assert headers["Accept"] == "application/vnd.github.v3+json"
    assert client.calls == 1


async def test_an_unchanged_answer_is_asked_for_with_its_etag_and_costs_no_quota(bench: Bench) -> None:
    bench.api.quota, bench.api.reset = 10, time.time() + 3600
    bench.api.on("GET", REPO, Says({"id": 1, "topics": ["a"]}))
    client = bench.client()
    first = await client.get(REPO)
    first["topics"].append("changed by a caller")
    assert await client.get(REPO) == {"id": 1, "topics": ["a"]}
    assert await client.get(REPO) == {"id": 1, "topics": ["a"]}
    assert (client.calls, client.unchanged, bench.api.quota) == (3, 2, 9)
    bench.api.on("GET", REPO, Says({"id": 2}))
    assert await client.get(REPO) == {"id": 2}
    assert bench.api.quota == 8


async def test_another_media_type_is_another_answer(bench: Bench) -> None:
    def answer(asked: Asked) -> Says:
        if asked.headers["Accept"].endswith(".diff"):
            return Says(
                raw=b"diff --git a/a b/a\n",
                headers={"Content-Type": "application/vnd.github.diff; charset=utf-8"},
            )
        return Says({"number": 3})

    bench.api.on("GET", f"{REPO}/pulls/3", answer)
    client = bench.client()
    for _ in range(2):
        assert await client.get(f"{REPO}/pulls/3") == {"number": 3}
        assert (
            await client.get(f"{REPO}/pulls/3", accept="application/vnd.github.diff")
            == "diff --git a/a b/a\n"
        )
    assert client.unchanged == 2


async def test_a_kept_etag_tells_whether_something_changed(bench: Bench) -> None:
    bench.api.lists(f"{REPO}/pulls", [{"number": n} for n in range(150)])
    client = bench.client()
    etag, first = await client.changed(f"{REPO}/pulls", {"per_page": 100}, None)
    assert etag and first is not None and len(first) == 100
    assert await client.changed(f"{REPO}/pulls", {"per_page": 100}, etag) == (etag, None)
    bench.api.lists(f"{REPO}/pulls", [{"number": 151}])
    newer, data = await client.changed(f"{REPO}/pulls", {"per_page": 100}, etag)
    assert newer != etag and data == [{"number": 151}]
    assert client.calls == 3


async def test_all_pages_are_read_and_no_more_than_that(bench: Bench) -> None:
    bench.api.lists(f"{REPO}/issues", [{"number": n} for n in range(250)])
    client = bench.client()
    items = await client.pages(f"{REPO}/issues", {"state": "open"})
    assert [item["number"] for item in items] == list(range(250))
    assert client.calls == 3
    assert all(asked.query["state"] == "open" for asked in bench.api.requests)


async def test_reading_stops_at_the_first_item_for_which_until_is_true(bench: Bench) -> None:
    bench.api.lists(f"{REPO}/issues", [{"number": n} for n in range(250)])
    client = bench.client()
    items = await client.pages(f"{REPO}/issues", until=lambda item: item["number"] == 120)
    assert [item["number"] for item in items] == list(range(120))
    assert client.calls == 2


async def test_no_more_than_the_wanted_number_is_read_and_a_small_one_asks_for_a_small_page(
    bench: Bench,
) -> None:
    bench.api.lists(f"{REPO}/actions/runs", [{"id": n} for n in range(250)], key="workflow_runs")
    client = bench.client()
    assert len(await client.pages(f"{REPO}/actions/runs", key="workflow_runs", most=100)) == 100
    assert client.calls == 1
    assert len(await client.pages(f"{REPO}/actions/runs", key="workflow_runs", most=5)) == 5
    assert bench.api.requests[-1].query["per_page"] == "5"
    assert len(await client.pages(f"{REPO}/actions/runs", key="workflow_runs", most=130)) == 130


async def test_pages_that_did_not_change_are_known_with_their_links(bench: Bench) -> None:
    bench.api.lists(f"{REPO}/issues", [{"number": n} for n in range(150)])
    client = bench.client()
    assert await client.pages(f"{REPO}/issues") == await client.pages(f"{REPO}/issues")
    assert (client.calls, client.unchanged) == (4, 2)


async def test_a_page_that_comes_after_a_full_one_is_found_though_the_full_one_did_not_change(
    bench: Bench,
) -> None:
    items = [{"number": n} for n in range(100)]
    bench.api.lists(f"{REPO}/issues", items)
    client = bench.client()
    assert len(await client.pages(f"{REPO}/issues")) == 100
    items.append({"number": 100})
    assert len(await client.pages(f"{REPO}/issues")) == 101


@pytest.mark.parametrize("body", [{"message": "no list"}, [1, 2], "text"])
async def test_a_list_that_is_none_is_refused(bench: Bench, body: Any) -> None:
    bench.api.on("GET", f"{REPO}/issues", Says(body))
    with pytest.raises(ForgeUnavailable, match="no list"):
        await bench.client().pages(f"{REPO}/issues")


async def test_a_link_to_another_host_is_not_followed(bench: Bench) -> None:
    link = {"Link": '<https://evil.example/repos?page=2>; rel="next"'}
    bench.api.on("GET", f"{REPO}/issues", Says([{"number": 1}], headers=link))
    with pytest.raises(ForgeError, match=r"evil\.example"):
        await bench.client().pages(f"{REPO}/issues")


async def test_an_enterprise_address_keeps_its_path_and_has_graphql_beside_it() -> None:
    async with GithubApi("/api").running() as api:
        api.on("GET", f"/v3{REPO}", Says({"id": 1}))
        api.on("POST", "/graphql", Says({"data": {"viewer": {"login": "x"}}}))
        shown = TokenCredentials(api.token, variable="GH_TOKEN", clock=Time().now)
        client = GithubClient(api_url=f"{api.url}/v3", credentials=shown, clock=Time().now)
        assert await client.get(REPO) == {"id": 1}
        assert await client.graphql("query { viewer { login } }", {}) == {"viewer": {"login": "x"}}
        await client.close()


# Changing


async def test_what_is_sent_arrives_as_json_and_no_content_is_none(bench: Bench) -> None:
    bench.api.on("POST", f"{REPO}/issues", Says({"number": 5}, 201))
    bench.api.on("DELETE", f"{REPO}/git/refs/heads/x", Says(status=204))
    client = bench.client()
    assert await client.send("POST", f"{REPO}/issues", {"title": "Größe"}) == {"number": 5}
    assert bench.api.requests[0].body == {"title": "Größe"}
    assert await client.send("DELETE", f"{REPO}/git/refs/heads/x") is None


async def test_changes_are_made_one_at_a_time_with_a_pause_while_reading_goes_on(bench: Bench) -> None:
    bench.api.on("POST", f"{REPO}/issues", Says({}, 201, after=0.1))
    bench.api.on("GET", REPO, Says({"id": 1}, after=0.1))
    client = bench.client(write_spacing=0.1, sleep=asyncio.sleep, clock=lambda: datetime.now(UTC))
    await asyncio.gather(
        *(client.send("POST", f"{REPO}/issues", {}) for _ in range(4)), *(client.get(REPO) for _ in range(4))
    )
    assert bench.api.most_writes_at_once == 1
    assert bench.api.most_at_once > 1
    times = [asked.at for asked in bench.api.asked("POST", f"{REPO}/issues")]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(times))


async def test_no_more_than_eight_requests_are_under_way(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}, after=0.3))
    client = bench.client()
    await asyncio.gather(*(client.get(REPO) for _ in range(30)))
    assert bench.api.most_at_once == 8


async def test_a_renamed_repository_is_followed_with_the_same_method_and_nothing_is_remembered(
    bench: Bench,
) -> None:
    api = bench.api
    api.on(
        "GET", REPO, Says({"message": "Moved Permanently"}, 301, {"Location": f"{api.url}/repositories/1"})
    )
    api.on("GET", "/repositories/1", Says({"id": 1}))
    api.on("POST", f"{REPO}/issues", Says({}, 307, {"Location": "/repositories/1/issues"}))
    api.on("POST", "/repositories/1/issues", Says({"number": 5}, 201))
    client = bench.client()
    assert await client.get(REPO) == await client.get(REPO) == {"id": 1}
    assert await client.send("POST", f"{REPO}/issues", {"title": "t"}) == {"number": 5}
    assert api.requests[-1].body == {"title": "t"}
    assert client.calls == 6


@pytest.mark.parametrize(
    "location", ["https://evil.example/x", "http://x@127.0.0.1/x", "http://[", "ftp://x/"]
)
async def test_no_redirect_takes_the_credentials_elsewhere(bench: Bench, location: str) -> None:
    bench.api.on("GET", REPO, Says({}, 301, {"Location": location}))
    with pytest.raises(ForgeError, match="api_url"):
        await bench.client().get(REPO)


async def test_a_circle_of_redirects_ends(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({}, 302, {"Location": REPO}))
    client = bench.client()
    with pytest.raises(ForgeError, match="circle"):
        await client.get(REPO)
    assert client.calls == 6


# What GitHub refuses


async def test_what_is_not_there_is_gone(bench: Bench) -> None:
    bench.api.on("GET", f"{REPO}/actions/jobs/1/logs", Says({"message": "Server Error: logs expired"}, 410))
    client = bench.client()
    for path in ("/repos/acme/none", f"{REPO}/actions/jobs/1/logs"):
        with pytest.raises(Gone, match=path):
            await client.get(path)
    assert client.calls == 2


async def test_a_missing_permission_is_named(bench: Bench) -> None:
    said = Says(
        {"message": "Resource not accessible by integration"},
        403,
        {"X-Accepted-GitHub-Permissions": "pull_requests=write"},
    )
    bench.api.on("POST", f"{REPO}/pulls", said)
    client = bench.client()
    with pytest.raises(AccessLost, match=r"Resource not accessible by integration.*pull_requests=write"):
        await client.send("POST", f"{REPO}/pulls", {})
    assert client.calls == 1


@pytest.mark.parametrize("status", [400, 405, 409, 422])
async def test_a_refusal_keeps_githubs_details(bench: Bench, status: int) -> None:
    errors = [
        {"resource": "PullRequest", "code": "custom", "message": "No commits between main and x"},
        {"resource": "PullRequest", "field": "base", "code": "invalid"},
        "line must be part of the diff",
    ]
    bench.api.on("POST", f"{REPO}/pulls", Says({"message": "Validation Failed", "errors": errors}, status))
    with pytest.raises(Unprocessable) as caught:
        await bench.client().send("POST", f"{REPO}/pulls", {})
    assert (caught.value.status, caught.value.message) == (status, "Validation Failed")
    assert caught.value.errors == tuple(errors)
    for words in ("No commits between", "PullRequest.base: invalid", "part of the diff"):
        assert words in str(caught.value)


async def test_what_github_says_is_cut_and_never_shows_a_token(bench: Bench) -> None:
    token = bench.api.token
    said = f"{token} ghs_{'b' * 36}\x1b[31m\n" + "x" * 5000
    bench.api.on("GET", REPO, Says({"message": said, "errors": [said]}, 422))
    with pytest.raises(Unprocessable) as caught:
        await bench.client().get(REPO)
    text = str(caught.value)
    assert token not in text and "ghs_b" not in text and "\x1b" not in text and "\n" not in text
    assert len(text) < 1300


async def test_an_answer_that_is_not_json_is_no_answer_of_githubs(bench: Bench) -> None:
    client = bench.client()
    bench.api.on("GET", REPO, Says(raw=b'{"id": '))
    with pytest.raises(ForgeUnavailable, match="cannot be read"):
        await client.get(REPO)
    bench.api.on("GET", REPO, Says(raw=b"[" * 200_000))
    with pytest.raises(ForgeUnavailable, match="cannot be read"):
        await client.get(REPO)
    bench.api.on("GET", REPO, Says(raw=b"<html>log in", headers={"Content-Type": "text/html"}))
    with pytest.raises(ForgeUnavailable, match="proxy"):
        await client.get(REPO)


# Limits


async def test_twenty_requests_wait_together_when_the_limit_strikes_and_all_succeed(bench: Bench) -> None:
    bench.api.now = lambda: datetime.now(UTC)
    bench.api.on("GET", REPO, Says({"id": 1}, after=0.1))
    bench.api.quota, bench.api.reset = 5, int(time.time()) + 6
    client = bench.client(sleep=asyncio.sleep, clock=lambda: datetime.now(UTC))
    answers = await asyncio.gather(*(client.get(f"{REPO}", {"n": n}) for n in range(20)))
    assert answers == [{"id": 1}] * 20
    assert 0 < bench.api.limited < 8  # those that were under way already
    assert client.calls == 20 + bench.api.limited
    times = sorted(asked.at for asked in bench.api.requests)
    pauses = [place for place, (earlier, later) in enumerate(pairwise(times)) if later - earlier > 2.5]
    assert pauses == [4 + bench.api.limited]  # all the others were sent after it


async def test_a_longer_wait_than_our_patience_is_told_with_its_length_and_nothing_more_is_sent(
    bench: Bench,
) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    bench.api.quota, bench.api.reset = 0, bench.time.now().timestamp() + 1800
    client = bench.client()
    for _ in range(5):
        with pytest.raises(ForgeUnavailable) as caught:
            await client.get(REPO)
        assert 1700 < (caught.value.retry_after or 0) < 1810
    assert client.calls == 1
    assert bench.time.slept == []


async def test_the_last_request_of_the_quota_is_noticed_before_one_is_refused(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    bench.api.quota, bench.api.reset = 1, bench.time.now().timestamp() + 30
    client = bench.client()
    assert await client.get(REPO, {"n": 1}) == await client.get(REPO, {"n": 2}) == {"id": 1}
    assert bench.api.limited == 0
    assert 29 <= sum(bench.time.slept) <= 32


async def test_a_wrong_clock_of_ours_does_not_lengthen_the_wait(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    bench.api.quota, bench.api.reset = 0, bench.time.now().timestamp() + 30
    client = bench.client(clock=lambda: bench.time.now() - timedelta(hours=1))
    assert await client.get(REPO) == {"id": 1}
    assert 29 <= sum(bench.time.slept) <= 32


@pytest.mark.parametrize("status", [403, 429])
async def test_retry_after_is_obeyed_also_for_a_post(bench: Bench, status: int) -> None:
    limit = Says({"message": "You have exceeded a secondary rate limit."}, status, {"Retry-After": "7"})
    bench.api.on("POST", f"{REPO}/issues", limit, Says({"number": 1}, 201))
    assert await bench.client().send("POST", f"{REPO}/issues", {}) == {"number": 1}
    assert [round(seconds) for seconds in bench.time.slept] == [7]


async def test_a_secondary_limit_that_does_not_say_how_long_waits_a_minute_and_then_twice_that(
    bench: Bench,
) -> None:
    limit = Says({"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}, 403)
    bench.api.on("GET", REPO, limit, limit, limit, Says({"id": 1}))
    assert await bench.client(patience=500).get(REPO) == {"id": 1}
    assert [round(seconds) for seconds in bench.time.slept] == [60, 120, 240]
    bench.api.on("GET", REPO, limit, limit)
    with pytest.raises(ForgeUnavailable) as caught:
        await bench.client(patience=100).get(REPO)
    assert round(caught.value.retry_after or 0) == 120


@pytest.mark.parametrize(
    "error",
    [
        {"resource": "PullRequest", "code": "custom", "message": "was submitted too quickly"},
        {"resource": "IssueComment", "code": "abuse", "field": "data"},
        "was submitted too quickly",
    ],
)
async def test_what_was_said_too_quickly_is_said_again_after_a_minute(bench: Bench, error: Any) -> None:
    limit = Says({"message": "Validation Failed", "errors": [error]}, 422)
    bench.api.on("POST", f"{REPO}/pulls", limit, Says({"number": 1}, 201))
    assert await bench.client().send("POST", f"{REPO}/pulls", {}) == {"number": 1}
    assert [round(seconds) for seconds in bench.time.slept] == [60]


async def test_one_strike_at_many_requests_counts_once(bench: Bench) -> None:
    limit = Says({"message": "You have exceeded a secondary rate limit."}, 403, after=0.05)
    bench.api.on("GET", REPO, *[limit] * 8, Says({"id": 1}))
    client = bench.client(patience=1)
    told = await asyncio.gather(*(client.get(REPO) for _ in range(8)), return_exceptions=True)
    waits = [round(one.retry_after or 0) for one in told if isinstance(one, ForgeUnavailable)]
    assert waits == [60] * 8


async def test_a_quota_used_up_for_graphql_leaves_the_rest_alone(bench: Bench) -> None:
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(bench.time.now().timestamp()) + 900)}
    bench.api.on(
        "POST", "/graphql", Says({"errors": [{"type": "RATE_LIMITED", "message": "no"}]}, headers=reset)
    )
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client()
    with pytest.raises(ForgeUnavailable) as caught:
        await client.graphql("query { viewer { login } }", {})
    assert 890 < (caught.value.retry_after or 0) < 910
    assert await client.get(REPO) == {"id": 1}


@pytest.mark.parametrize(
    ("kind", "expected"), [("NOT_FOUND", Gone), ("FORBIDDEN", AccessLost), ("UNPROCESSABLE", Unprocessable)]
)
async def test_errors_of_graphql_are_errors(bench: Bench, kind: str, expected: type[ForgeError]) -> None:
    bench.api.on("POST", "/graphql", Says({"data": None, "errors": [{"type": kind, "message": "said so"}]}))
    with pytest.raises(expected, match="said so"):
        await bench.client().graphql("mutation { x }", {})


async def test_a_query_that_github_was_too_slow_for_is_trouble_and_no_refusal(bench: Bench) -> None:
    words = (
        "Something went wrong while executing your query on 2026-11-21. This may be the result of a timeout"
    )
    bench.api.on("POST", "/graphql", Says({"data": None, "errors": [{"message": words}]}))
    with pytest.raises(ForgeUnavailable, match="may have been done"):
        await bench.client().graphql("mutation { x }", {})


async def test_a_limit_that_says_to_wait_no_time_does_not_make_us_spin(bench: Bench) -> None:
    bench.api.on("GET", REPO, Says({"message": "secondary rate limit"}, 429, {"Retry-After": "0"}))
    client = bench.client(patience=5)
    with pytest.raises(ForgeUnavailable):
        await client.get(REPO)
    assert client.calls <= 6


# Trouble


@pytest.mark.parametrize("trouble", [Says({}, 502), Says(cut="at once"), Says({"id": 1}, cut="midway")])
async def test_reading_outlives_two_failures_and_not_three(bench: Bench, trouble: Says) -> None:
    bench.api.on("GET", REPO, trouble, trouble, Says({"id": 1}))
    client = bench.client()
    assert await client.get(REPO) == {"id": 1}
    assert client.calls == 3
    assert 0.25 <= bench.time.slept[0] <= 0.5 <= bench.time.slept[1] <= 1.0
    bench.api.on("GET", f"{REPO}/issues", trouble)
    with pytest.raises(ForgeUnavailable):
        await client.get(f"{REPO}/issues")
    assert client.calls == 6


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("trouble", [Says({}, 502), Says(cut="at once"), Says({"id": 1}, cut="midway")])
async def test_what_may_have_arrived_is_not_sent_again(bench: Bench, method: str, trouble: Says) -> None:
    bench.api.on(method, f"{REPO}/issues", trouble)
    client = bench.client()
    with pytest.raises(ForgeUnavailable, match="may have arrived"):
        await client.send(method, f"{REPO}/issues", {})
    assert client.calls == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_what_may_be_sent_twice_is_sent_again(bench: Bench, method: str) -> None:
    bench.api.on(method, f"{REPO}/x", Says(cut="at once"), Says({}, 500), Says(status=204))
    client = bench.client()
    assert await client.send(method, f"{REPO}/x") is None
    assert client.calls == 3


async def test_a_post_that_never_left_is_tried_three_times(bench: Bench) -> None:
    client = bench.client()
    bench.api.url = "http://127.0.0.1:1"
    client = bench.client()
    with pytest.raises(ForgeUnavailable, match="cannot be reached") as caught:
        await client.send("POST", f"{REPO}/issues", {})
    assert client.calls == 3
    assert "arrived" not in str(caught.value)


async def test_a_host_in_trouble_says_how_long_it_wants_to_be_left_alone(bench: Bench) -> None:
    bench.api.on("POST", f"{REPO}/issues", Says({}, 503, {"Retry-After": "40"}))
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client()
    with pytest.raises(ForgeUnavailable) as caught:
        await client.send("POST", f"{REPO}/issues", {})
    assert caught.value.retry_after == 40
    assert await client.get(REPO) == {"id": 1}
    assert round(sum(bench.time.slept)) == 40


# Credentials


async def test_a_refused_token_is_told_with_its_variable_and_not_shown_again_for_a_while(
    bench: Bench,
) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client()
    token = bench.api.token
    assert await client.get(REPO) == {"id": 1}
    del bench.api.tokens[token]
    for _ in range(3):
        with pytest.raises(AccessLost, match=r"token in GH_TOKEN.*revoked") as caught:
            await client.get(REPO)
        assert token not in str(caught.value)
    assert client.calls == 2
    bench.api.tokens[token] = None
    bench.time.ahead += 301
    assert await client.get(REPO) == {"id": 1}


async def test_concurrent_callers_share_one_installation_token_for_the_one_repository(
    bench: Bench, app: App
) -> None:
    bench.api.on("GET", REPO, Says({"id": 1}))
    client = bench.client(bench.app(app))
    await asyncio.gather(*(client.get(REPO) for _ in range(20)))
    issued = bench.api.asked("POST", "/app/installations/7001/access_tokens")
    assert [asked.body for asked in issued] == [{"repositories": ["gateway"]}]
    assert len(app.issued) == 1
    assert client.calls == 20


async def test_a_token_is_renewed_five_minutes_before_its_end(bench: Bench, app: App) -> None:
    credentials = bench.app(app)
    first = await credentials.token()
    bench.time.ahead += 54 * 60
    assert await credentials.token() == first
    bench.time.ahead += 90
    second = await credentials.token()
    assert second != first
    assert app.issued == [first, second]
    assert len(bench.api.asked("GET", f"{REPO}/installation")) == 1


async def test_a_token_revoked_in_the_middle_is_replaced_and_the_request_made_again(
    bench: Bench, app: App
) -> None:
    bench.api.on("POST", f"{REPO}/issues", Says({"number": 1}, 201))
    client = bench.client(bench.app(app))
    await client.send("POST", f"{REPO}/issues", {})
    bench.api.tokens.pop(app.issued[0])
    assert await client.send("POST", f"{REPO}/issues", {}) == {"number": 1}
    assert [asked.status for asked in bench.api.asked("POST", f"{REPO}/issues")] == [201, 401, 201]
    assert len(app.issued) == 2


async def test_a_new_token_that_is_refused_too_is_the_end(bench: Bench, app: App) -> None:
    bench.api.on("GET", REPO, Says({"message": "Bad credentials"}, 401))
    client = bench.client(bench.app(app))
    with pytest.raises(AccessLost, match="Bad credentials"):
        await client.get(REPO)
    assert client.calls == len(app.issued) == 2


async def test_a_token_that_still_lasts_is_used_while_github_cannot_renew_it(bench: Bench, app: App) -> None:
    credentials = bench.app(app)
    first = await credentials.token()
    bench.api.on("POST", "/app/installations/7001/access_tokens", Says({}, 503))
    bench.time.ahead += 57 * 60
    assert await credentials.token() == first
    bench.time.ahead += 150
    with pytest.raises(ForgeUnavailable):
        await credentials.token()


@pytest.mark.parametrize("known", [False, True])
async def test_a_suspended_installation_is_told_as_such(bench: Bench, app: App, known: bool) -> None:
    credentials = bench.app(app)
    if known:
        credentials.spoiled(await credentials.token())
    app.suspended = True
    with pytest.raises(AccessLost, match=r"installation .* in acme/gateway is suspended.*has been suspended"):
        await credentials.token()


async def test_an_installation_suspended_in_the_middle_is_told(bench: Bench, app: App) -> None:
    bench.api.on("GET", REPO, Says({"message": "This installation has been suspended"}, 403))
    with pytest.raises(AccessLost, match=r"has been suspended.*Settings"):
        await bench.client(bench.app(app)).get(REPO)


async def test_an_app_that_is_not_installed_says_where_to_install_it(bench: Bench) -> None:
    app = bench.api.app(12, PUBLIC, "acme/gateway", installed=False)
    with pytest.raises(AccessLost) as caught:
        await bench.app(app).token()
    assert str(caught.value) == (
        "The App is not installed on acme/gateway: install it at https://github.com/apps/codespar-test/installations/new"
    )


async def test_an_app_installed_anew_is_found_again(bench: Bench, app: App) -> None:
    credentials = bench.app(app)
    credentials.spoiled(await credentials.token())
    app.reinstall(7002)
    assert await credentials.token() == app.issued[-1]
    assert len(app.issued) == 2


async def test_an_app_keeps_its_access_when_the_repository_is_renamed(bench: Bench, app: App) -> None:
    credentials = bench.app(app)
    credentials.spoiled(await credentials.token())
    app.covers = ["gate"]
    assert await credentials.token() == app.issued[-1]
    assert len(app.issued) == 2


async def test_an_app_follows_the_repository_to_another_account(bench: Bench, app: App) -> None:
    credentials = bench.app(app)
    credentials.spoiled(await credentials.token())
    app.reinstall(7002)  # which the former name leads to
    refused = "There is at least one repository that does not exist or is not accessible to the parent installation."
    bench.api.on("POST", "/app/installations/7001/access_tokens", Says({"message": refused}, 422))
    assert await credentials.token() == app.issued[-1]
    assert len(app.issued) == 2


async def test_an_installation_without_the_repository_says_so(bench: Bench, app: App) -> None:
    app.covers = ["other"]
    with pytest.raises(AccessLost, match="not for acme/gateway"):
        await bench.app(app).token()


async def test_a_key_of_another_app_is_told_without_the_key(bench: Bench, app: App) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    with pytest.raises(AccessLost, match=r"App 12 by the key in GH_KEY") as caught:
        await bench.app(app, key=other.decode()).token()
    assert "eyJ" not in str(caught.value) and "BEGIN" not in str(caught.value)


# Streams


async def read(client: GithubClient, path: str) -> bytes:
    return b"".join([piece async for piece in client.stream(path)])


LOGS = f"{REPO}/actions/jobs/1/logs"


async def test_a_log_on_another_host_is_read_without_our_credentials(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.api.on("GET", LOGS, Says(status=302, headers={"Location": bench.api.blobs.url}))
    bench.api.blobs.content = b"one\ntwo\n"
    client = bench.client()
    assert await read(client, LOGS) == b"one\ntwo\n"
    assert "Authorization" not in bench.api.blobs.requests[0]
    assert client.calls == 2
    assert "logs/1.txt" in caplog.text and "sig=" not in caplog.text


async def test_a_log_of_200_megabytes_is_never_whole_in_memory(bench: Bench) -> None:
    size = bench.api.blobs.size = 200 * 2**20
    bench.api.on("GET", LOGS, Says(status=302, headers={"Location": bench.api.blobs.url}))
    client = bench.client()
    read = 0
    tracemalloc.start()
    try:
        async for piece in client.stream(LOGS):
            read += len(piece)
            assert len(piece) <= 64 * 1024
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == size
    assert peak < 8 * 2**20


async def test_whoever_has_read_enough_stops(bench: Bench) -> None:
    bench.api.blobs.size = 50 * 2**20
    bench.api.on("GET", LOGS, Says(status=302, headers={"Location": bench.api.blobs.url}))
    client = bench.client(at_once=1)
    for _ in range(3):
        async with aclosing(client.stream(LOGS)) as pieces:
            assert len(await anext(pieces)) <= 64 * 1024
    assert client.calls == 6


async def test_a_log_that_github_holds_itself_is_read_from_there(bench: Bench) -> None:
    bench.api.on("GET", LOGS, Says(status=301, headers={"Location": "/repositories/1/logs"}))
    bench.api.on("GET", "/repositories/1/logs", Says(raw=b"text", headers={"Content-Type": "text/plain"}))
    assert await read(bench.client(), LOGS) == b"text"


@pytest.mark.parametrize("location", ["http://logs.example/1", "file:///etc/passwd", "http://["])
async def test_a_log_is_not_fetched_without_encryption(bench: Bench, location: str) -> None:
    bench.api.on("GET", LOGS, Says(status=302, headers={"Location": location}))
    client = bench.client()
    with pytest.raises(ForgeError, match="not fetched"):
        await read(client, LOGS)
    assert client.calls == 1


@pytest.mark.parametrize(
    ("status", "expected"), [(404, Gone), (403, ForgeUnavailable), (503, ForgeUnavailable)]
)
async def test_a_log_that_its_host_does_not_give_is_told_without_its_address(
    bench: Bench, status: int, expected: type[ForgeError]
) -> None:
    bench.api.on("GET", LOGS, Says(status=302, headers={"Location": bench.api.blobs.url}))
    bench.api.blobs.status = status
    with pytest.raises(expected) as caught:
        await read(bench.client(), LOGS)
    assert "sig" not in str(caught.value)


async def test_a_log_that_has_expired_is_gone(bench: Bench) -> None:
    bench.api.on("GET", LOGS, Says({"message": "Gone"}, 410))
    with pytest.raises(Gone):
        await read(bench.client(), LOGS)


async def test_a_log_that_breaks_off_says_so(bench: Bench) -> None:
    said = Says(raw=b"half of it", cut="midway", headers={"Content-Type": "text/plain"})
    bench.api.on("GET", LOGS, said)
    with pytest.raises(ForgeUnavailable, match="in the middle"):
        await read(bench.client(), LOGS)
