"""Who we are to GitHub, as far as it is decided without GitHub: keys, settings, what may stand in an error, and how long to wait."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from codespar.forges.base import AccessLost, ForgeError, ForgeUnavailable
from codespar.forges.github.client import GithubClient
from codespar.forges.github.credentials import (
    AppCredentials,
    AppKey,
    Credentials,
    TokenCredentials,
    make_credentials,
)
from codespar.forges.github.errors import LONGEST, Unprocessable, refusal, shown
from codespar.forges.github.etags import Answer, Etags
from codespar.forges.github.gitauth import git_environment
from codespar.forges.github.limits import Limits, Patience
from codespar.forges.github.settings import GithubSettings
from codespar.forges.github.transport import origin
from codespar.git import SAFE_CONFIG, environment

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TOKEN = "github_pat_" + "x" * 60


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def no_client(_: Credentials) -> GithubClient:
    raise AssertionError("nothing is to be asked")


def made(settings: GithubSettings, environment: dict[str, str]) -> AppCredentials | TokenCredentials:
    return make_credentials(
        settings, environment, "acme/gateway", client_factory=no_client, clock=lambda: NOW
    )


# Settings


@pytest.mark.parametrize(
    "address", ["http://github.example/api/v3", "http://127.0.0.1.evil.example", "ftp://x"]
)
def test_an_address_that_would_send_tokens_in_clear_is_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        GithubSettings(api_url=address)


@pytest.mark.parametrize(
    "address", ["https://github.example/api/v3", "http://localhost:4001", "http://127.0.0.1:9/api/v3"]
)
def test_an_encrypted_address_or_one_of_this_machine_is_taken(address: str) -> None:
    assert GithubSettings(api_url=address).api_url == address


def test_every_setting_is_described() -> None:
    assert all(field.description for field in GithubSettings.model_fields.values())


async def test_a_token_is_taken_from_the_named_variable() -> None:
    assert await made(GithubSettings(), {"CODESPAR_GITHUB_TOKEN": f" {TOKEN}\n"}).token() == TOKEN
    other = GithubSettings(token_env="OTHER")
    assert await made(other, {"CODESPAR_GITHUB_TOKEN": "no", "OTHER": TOKEN}).token() == TOKEN
    assert await made(other, {"OTHER": TOKEN}).app_jwt() is None


def test_a_missing_token_says_which_variable_to_set() -> None:
    with pytest.raises(AccessLost, match=r"acme/gateway: set CODESPAR_GITHUB_TOKEN"):
        made(GithubSettings(), {"CODESPAR_GITHUB_TOKEN": "  "})


def test_a_missing_key_says_which_variable_to_set() -> None:
    with pytest.raises(AccessLost, match=r"App 12.*set CODESPAR_GITHUB_PRIVATE_KEY"):
        made(GithubSettings(app_id=12), {"CODESPAR_GITHUB_TOKEN": TOKEN})
    with pytest.raises(AccessLost, match=r"set MY_KEY"):
        made(GithubSettings(app_id=12, private_key_env="MY_KEY"), {"CODESPAR_GITHUB_PRIVATE_KEY": "x"})


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = GithubSettings(app_id=12, private_key_file=tmp_path / "none.pem")
    with pytest.raises(AccessLost, match=r"none\.pem: No such file.*private_key_file"):
        made(settings, {})
    (tmp_path / "none.pem").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AccessLost, match="not a PEM file"):
        made(settings, {})


async def test_a_key_on_one_line_and_one_in_a_file_are_both_understood(
    tmp_path: Path, key: rsa.RSAPrivateKey
) -> None:
    (tmp_path / "app.pem").write_text(pem(key))
    one_line = pem(key).replace("\n", "\\n")
    for credentials in (
        made(GithubSettings(app_id=12, private_key_file=tmp_path / "app.pem"), {}),
        made(GithubSettings(app_id=12), {"CODESPAR_GITHUB_PRIVATE_KEY": one_line}),
    ):
        assert (await credentials.app_jwt() or "").startswith("eyJ")


# The App's key


async def test_a_jwt_lives_less_than_ten_minutes_and_is_made_anew_before_it_ends(
    key: rsa.RSAPrivateKey,
) -> None:
    now = NOW
    app = AppKey(12, pem(key), source="K", clock=lambda: now)
    first = await app.token()
    claims = jwt.decode(
        first, key.public_key(), ["RS256"], options={"verify_exp": False, "verify_iat": False}
    )
    assert claims["iss"] == "12"
    assert claims["iat"] < NOW.timestamp() < claims["exp"] <= NOW.timestamp() + 600
    assert claims["exp"] - claims["iat"] <= 600
    now = NOW + timedelta(minutes=7)
    assert await app.token() == first
    now = NOW + timedelta(minutes=8, seconds=1)
    assert await app.token() != first


@pytest.mark.parametrize(
    "text", ["no key", "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"]
)
async def test_what_is_no_private_key_is_told_without_being_shown(text: str) -> None:
    with pytest.raises(AccessLost, match="What is in MY_KEY is not the private key") as caught:
        await AppKey(12, text, source="MY_KEY", clock=lambda: NOW).token()
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_nothing_shows_a_secret_by_its_repr(key: rsa.RSAPrivateKey) -> None:
    app = AppKey(12, pem(key), source="K", clock=lambda: NOW)
    signed = await app.token()
    token = TokenCredentials(TOKEN, variable="V", clock=lambda: NOW)
    assert not any(secret in repr([app, token]) for secret in (TOKEN, signed, "PRIVATE"))


# Errors


@settings(deadline=None)
@given(st.text(), st.text(min_size=1), st.text())
def test_no_words_of_githubs_show_a_secret_a_control_character_or_more_than_the_most(
    before: str, filler: str, after: str
) -> None:
    said = shown(f"{before}{TOKEN}{filler}{TOKEN}{after}", TOKEN)
    assert TOKEN not in said
    assert len(said) <= LONGEST
    assert said.isprintable()


@pytest.mark.parametrize(
    "secret",
    [
        "ghs_" + "a" * 36,
        "ghp_" + "B" * 36,
        TOKEN,
        "ghs_12_eyJhbGciOi.eyJpc3Mi.c2ln",
        "eyJhbGciOi.eyJpc3Mi.c2ln",
    ],
)
def test_tokens_that_are_not_ours_are_hidden_too(secret: str) -> None:
    assert (
        shown(f"token {secret}, see https://x.example/?a=1&sig=abc%3D")
        == "token …, see https://x.example/?a=1&…"
    )


def test_details_of_any_shape_are_kept_and_readable() -> None:
    for errors in ([{"code": "x"}, None, 3, ["a"]], "text", {"a": 1}, None):
        error = refusal(422, {}, {"message": "no", "errors": errors}, "POST /x")
        assert isinstance(error, Unprocessable)
        assert str(error).startswith("GitHub will not do POST /x (422): no.")
    for body in (None, [], "an error page", 3, {"message": {"a": 1}}):
        assert isinstance(refusal(418, {}, body, "GET /x"), Unprocessable)


# Addresses


def test_only_the_same_scheme_host_and_port_are_one_origin() -> None:
    own = origin("https://api.github.com")
    assert origin("https://API.github.com:443/repos?x=1") == own
    for other in (
        "http://api.github.com",
        "https://api.github.com:444",
        "https://api.github.com.evil.example",
        "https://api.github.com@evil.example",
        "https://user@api.github.com",
        "https://evil.example\\@api.github.com",
        "//api.github.com",
        "https://[",
        "",
    ):
        assert origin(other) != own, other
    assert origin("http://localhost:1") == origin("http://127.0.0.1:1") != origin("http://127.0.0.1:2")


def test_git_gets_one_setting_more_than_the_safe_ones_take_up() -> None:
    lent = environment(git_environment(TOKEN, "https://github.com/acme/gateway.git"))
    count = int(lent["GIT_CONFIG_COUNT"])
    settings = [(lent[f"GIT_CONFIG_KEY_{n}"], lent[f"GIT_CONFIG_VALUE_{n}"]) for n in range(count)]
    assert settings[: len(SAFE_CONFIG)] == list(SAFE_CONFIG)
    assert ("credential.helper", "") in settings
    assert [name for name, value in lent.items() if TOKEN in value] == ["CODESPAR_GIT_PASSWORD"]


@pytest.mark.parametrize(
    "url", ["https://a:b@github.com/x", "git@github.com:x/y", "/srv/x.git", "ssh://github.com/x"]
)
def test_credentials_are_lent_for_a_plain_web_address_only(url: str) -> None:
    with pytest.raises(ForgeError) as caught:
        git_environment(TOKEN, url)
    assert TOKEN not in str(caught.value)


# Limits and ETags


async def test_patience_is_for_all_waits_of_a_call_together() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    patience = Patience(60, sleep)
    await patience.wait(40, "x")
    await patience.wait(20, "x")
    with pytest.raises(ForgeUnavailable) as caught:
        await patience.wait(1, "GET /x")
    assert slept == [40, 20]
    assert caught.value.retry_after == 1


def test_a_reset_is_measured_by_githubs_clock() -> None:
    limits = Limits(lambda: NOW, asyncio.sleep, at_once=1, spacing=0)
    theirs = NOW + timedelta(hours=5)
    headers = {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(theirs.timestamp()) + 10),
        "date": format_datetime(theirs, usegmt=True),
    }
    assert limits.struck(403, headers, "API rate limit exceeded", "core", 0)
    assert limits.wait_for("core") == 11
    assert limits.wait_for("graphql") == 0


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (403, {}, "Resource not accessible by integration"),
        (403, {"x-ratelimit-remaining": "12"}, "Must have admin rights"),
        (404, {"retry-after": "10"}, "Not Found"),
        (422, {}, "secondary rate limit"),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, ""),
    ],
)
def test_what_is_no_limit_holds_nothing_up(status: int, headers: dict[str, str], message: str) -> None:
    limits = Limits(lambda: NOW, asyncio.sleep, at_once=1, spacing=0)
    assert not limits.struck(status, headers, message, "core", 0)
    assert limits.wait_for("core") == 0


def answer(size: int, etag: str | None = '"x"') -> Answer:
    headers = httpx.Headers({"etag": etag} if etag else {})
    return Answer(200, headers, b"x" * size, httpx.Response(200))


def test_a_kept_answer_holds_no_connection_and_the_answers_of_a_hundred_repositories_fit_in_memory() -> None:
    kept = Etags()
    came = answer(10)
    gone = weakref.ref(came.response)
    kept.put("a", "json", came)
    del came
    gc.collect()
    assert gone() is None and kept.get("a", "json")
    for number in range(100):
        kept.put(f"{number}", "json", answer(2**20))
    held = [name for name in range(100) if kept.get(f"{name}", "json")]
    assert held == list(range(92, 100))


def test_kept_answers_are_bounded_in_number_and_size_and_the_least_used_goes_first() -> None:
    kept = Etags(entries=3, size=100)
    for name in ("a", "b", "c"):
        kept.put(name, "json", answer(10))
    assert kept.get("a", "json")
    kept.put("d", "json", answer(10))
    assert kept.get("b", "json") is None and kept.get("a", "json") and kept.get("d", "json")
    kept.put("e", "json", answer(85))
    assert [name for name in "abcde" if kept.get(name, "json")] == ["d", "e"]
    kept.put("f", "json", answer(101))
    kept.put("g", "json", answer(1, etag=None))
    assert [name for name in "abcdefg" if kept.get(name, "json")] == ["d", "e"]
    kept.put("e", "json", answer(1, etag=None))
    assert kept.get("e", "json") is None and kept.get("d", "json")
