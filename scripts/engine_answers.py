"""Asks the container engine for a sign of life: prints its address and ends with 0 when it answers.

Ends with 1 when nothing answers and with 3 when it is there but this user may not speak to it, with the reason on standard error.
Needs nothing but the standard library: it runs before anything is installed. It never starts or changes anything.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from urllib.parse import urlsplit

DEFAULT = "unix:///var/run/docker.sock"
SECONDS = 30.0  # on a busy machine; where nothing listens that is known at once


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def _connection(address: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    if parts.scheme in ("tcp", "http") and parts.hostname:
        return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=SECONDS)
    raise OSError(f"cannot ask an engine at an address of the kind {parts.scheme or 'without a scheme'!r}")


def main() -> int:
    address = os.environ.get("DOCKER_HOST") or DEFAULT
    try:
        connection = _connection(address)
        connection.request("GET", "/_ping")
        status = connection.getresponse().status
    except PermissionError as error:
        sys.stderr.write(f"{address}: {error.strerror}\n")
        return 3
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{address}: {error}\n")
        return 1
    if status != http.client.OK:
        sys.stderr.write(f"{address}: answered with HTTP status {status}\n")
        return 1
    sys.stdout.write(f"{address}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
