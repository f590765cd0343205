"""A front before a server that plays GitHub: it notes every request, and loses answers where a test asks for that.

It answers nothing itself: what GitHub says, the server behind it says.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Noted:
    """A request that came, and how it was answered."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    status: int
    violations: tuple[str, ...] = ()  # what prism says is wrong with the request

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Front:
    """Stands at `url` and passes everything on to a local port. `before` and `after` are called around each request, with its
    method and path, one at a time."""

    behind: int = 0
    before: Callable[[str, str], None] = lambda method, path: None
    after: Callable[[str, str], None] = lambda method, path: None
    noted: list[Noted] = field(default_factory=list)
    instead: dict[str, str] = field(
        default_factory=dict
    )  # headers, in lower case, that are put in the place of those that came
    without: set[str] = field(
        default_factory=set
    )  # headers of answers, in lower case, that are not passed on
    losing: str = ""  # a pattern of `METHOD /path`: the next such answer is lost, once

    def __enter__(self) -> Front:
        front = self
        turn = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def _pass(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else b""
                asked = urlsplit(self.path)
                with turn:
                    front.before(self.command, asked.path)
                    status, headers, content = self._asked(body)
                    front.after(self.command, asked.path)
                front.noted.append(
                    Noted(
                        method=self.command,
                        path=asked.path,
                        query=dict(parse_qsl(asked.query, keep_blank_values=True)),
                        body=json.loads(body) if body else None,
                        status=status,
                        violations=_violations(dict(headers), content),
                    )
                )
                if front.losing and re.search(front.losing, f"{self.command} {asked.path}"):
                    front.losing = ""
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in {*_HOP, *front.without}:
                        self.send_header(name, value)
                if status not in (204, 304):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", front.behind, timeout=60)
                try:
                    headers = {
                        k: v for k, v in self.headers.items() if k.lower() not in {*_HOP, *front.instead}
                    }
                    headers |= front.instead
                    connection.request(self.command, self.path, body or None, headers)
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            def do_GET(self) -> None:
                self._pass()

            def do_POST(self) -> None:
                self._pass()

            def do_PUT(self) -> None:
                self._pass()

            def do_PATCH(self) -> None:
                self._pass()

            def do_DELETE(self) -> None:
                self._pass()

            def log_message(self, format: str, *args: object) -> None:
                """Tests say what went wrong themselves."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def lose(self, pattern: str) -> None:
        """The next request that matches is carried out, and its answer does not arrive."""
        self.losing = pattern

    @property
    def lines(self) -> list[str]:
        return [one.line for one in self.noted]

    def forget(self) -> None:
        self.noted.clear()


def _violations(headers: dict[str, str], content: bytes) -> tuple[str, ...]:
    """What prism says of a request: in a header where the endpoint knows a 422, else in an error of its own."""
    found = json.loads(headers.get("sl-violations", "[]"))
    if b"stoplight.io/prism/errors" in content:
        told = json.loads(content)
        wrong = told.get("validation") or [{"location": [], "message": told["title"]}]
        found = [one | {"location": ["request", *one["location"]]} for one in wrong]
    return tuple(
        f"{'.'.join(str(part) for part in one['location'])}: {one['message']}"
        for one in found
        if one["location"][0] == "request" and one.get("severity", "Error") == "Error"
    )
