"""The command line's way to the server: events out of any cuts of bytes, and where a token is sent and where never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from codespar.cli.client import Event, Server, ServerUnreachable, SseParser, locate
from codespar.domain.base import CodesparError

FILE_TOKEN = "cs_from-the-file"

# A slow machine is no defect of what is tested.
calm = bounds(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(
    st.builds(
        Event,
        kind=st.sampled_from(["message", "task", "ping"]),
        data=st.dictionaries(st.text(max_size=8), VALUES, max_size=4),
        id=st.none() | st.integers(0, 2**53).map(str),
    ),
    max_size=5,
)


def on_the_wire(event: Event, end: str) -> str:
    lines = [f"id: {event.id}"] if event.id is not None else []
    lines += [f"event: {event.kind}", f"data: {json.dumps(event.data, ensure_ascii=False)}", "", ""]
    return end.join(lines)


# the event stream


@calm
@given(events=EVENTS, end=st.sampled_from(["\n", "\r\n"]), data=st.data())
def test_events_are_the_same_however_the_bytes_are_cut(events: list[Event], end: str, data: Any) -> None:
    stream = "".join(on_the_wire(event, end) for event in events).encode("utf-8", "surrogatepass")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser, found = SseParser(), list[Event]()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:stop])
    assert found == events


def test_every_single_byte_may_come_alone() -> None:
    parser = SseParser()
    stream = 'id: 7\r\nevent: message\r\ndata: {"größe": "日本"}\r\n\r\n'.encode()
    found = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert found == [Event("message", {"größe": "日本"}, "7")]


def test_an_event_is_given_only_when_it_is_whole() -> None:
    parser = SseParser()
    assert parser.feed(b'event: task\ndata: {"a": 1}\n') == []
    assert parser.feed(b"\n") == [Event("task", {"a": 1})]


def test_comments_and_events_without_data_are_passed_over() -> None:
    assert SseParser().feed(b": hello\n\nevent: ping\n\ndata: {}\n\n") == [Event("message", {})]


def test_data_of_several_lines_is_joined_and_the_space_after_the_colon_is_optional() -> None:
    assert SseParser().feed(b'data:{"a":\ndata: 1}\n\n') == [Event("message", {"a": 1})]


# where the server is


@pytest.fixture
def settings(work_folder: Path) -> Path:
    """A settings file whose data folder holds a token."""
    (work_folder / "data").mkdir()
    (work_folder / "data" / "cli-token").write_text(f"{FILE_TOKEN}\n")
    return _written(work_folder, "127.0.0.1", 7123)


def _written(folder: Path, host: str, port: int) -> Path:
    file = folder / "codespar.yaml"
    file.write_text(f'data_dir: data\nserver:\n  host: "{host}"\n  port: {port}\n')
    return file


def test_the_settings_name_the_server_and_its_token(settings: Path) -> None:
    assert locate(None, settings, {}) == Server("http://127.0.0.1:7123", FILE_TOKEN)


def test_the_option_goes_before_the_environment_which_goes_before_the_settings(settings: Path) -> None:
    environment = {"CODESPAR_URL": "http://localhost:2"}
    assert locate("http://127.0.0.1:1/", settings, environment).url == "http://127.0.0.1:1"
    assert locate(None, settings, environment).url == "http://localhost:2"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"])
def test_a_token_from_a_file_is_sent_to_this_machine(settings: Path, url: str) -> None:
    assert locate(url, settings, {}).token == FILE_TOKEN


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:7477",
        "http://10.0.0.5:7477",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "http://localhost:80@example.com:7477",
        "http://127.0.0.1#@example.com",
        "http://0.0.0.0:7477",
        "http://[::2]:7477",
        "http://localhost%2eexample.com",
    ],
)
def test_a_token_from_a_file_is_never_sent_to_another_host(settings: Path, url: str) -> None:
    by_option = locate(url, settings, {})
    by_environment = locate(None, settings, {"CODESPAR_URL": url})
    for server in (by_option, by_environment):
        host = _host_that_is_reached(server.url)
        assert server.token is None or host in ("127.0.0.1", "localhost", "::1")


def _host_that_is_reached(url: str) -> str | None:
    """As the HTTP client itself takes the address apart, which is what decides where the token goes."""
    from yarl import URL

    return URL(url).host


@calm
@given(host=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,30}", fullmatch=True), port=st.integers(1, 65535))
def test_whatever_the_host_only_loopback_gets_the_token_of_the_file(host: str, port: int) -> None:
    if host in ("127.0.0.1", "localhost"):
        return
    assert locate(f"http://{host}:{port}", Path("/nonexistent/codespar.yaml"), {}).token is None


def test_a_token_of_the_environment_goes_where_the_person_points_it(settings: Path) -> None:
    environment = {"CODESPAR_TOKEN": "cs_given"}
    assert locate("https://example.com", settings, environment) == Server("https://example.com", "cs_given")
    assert locate(None, settings, environment).token == "cs_given"


def test_a_server_listening_everywhere_is_reached_on_loopback(work_folder: Path) -> None:
    assert locate(None, _written(work_folder, "0.0.0.0", 7123), {}).url == "http://127.0.0.1:7123"


def test_without_a_token_file_there_is_no_token(work_folder: Path) -> None:
    assert locate(None, _written(work_folder, "127.0.0.1", 7123), {}).token is None


def test_a_server_that_chose_its_port_is_found_by_the_address_it_wrote(work_folder: Path) -> None:
    file = _written(work_folder, "127.0.0.1", 0)
    with pytest.raises(ServerUnreachable, match="codespar up"):
        locate(None, file, {})
    (work_folder / "data").mkdir()
    (work_folder / "data" / "server.address").write_text("http://127.0.0.1:45678\n")
    assert locate(None, file, {}).url == "http://127.0.0.1:45678"


@pytest.mark.parametrize("url", ["example.com", "ftp://example.com", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused_with_an_example(settings: Path, url: str) -> None:
    with pytest.raises(CodesparError, match=r"http://127\.0\.0\.1:7477"):
        locate(url, settings, {})


def test_the_token_is_in_no_printed_form() -> None:
    assert FILE_TOKEN not in repr(Server("http://127.0.0.1:1", FILE_TOKEN))
