"""The load generator: HTTP requests made beforehand, sent over kept-alive connections, each timed from its first byte to its answer's last.

It runs in a process of its own (`measure`), so that neither a server nor a benchmark shares its interpreter, and it only looks at what it
must of an answer. It must never retry: an answer that is not a success ends the measurement.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, cast

import uvloop

SLOWEST = 30.0  # seconds for all of one measurement
WARM = 0.05  # the part of the requests, at the beginning, that is sent but not counted


@dataclass(frozen=True)
class Measured:
    """What a load met with: answers a second, and seconds per request."""

    rate: float
    latencies: tuple[float, ...]

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[98] * 1000

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.latencies) * 1000


def request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def padded(delivery: str, size: int) -> str:
    """Text of `size` characters that begins with the delivery's name and repeats none of another's."""
    word = hashlib.sha256(delivery.encode()).hexdigest()
    return (f"{delivery} " + f"{word} " * (size // (len(word) + 1) + 1))[:size]


def signed(source: str, secret: str, delivery: str, size: int) -> bytes:
    """A webhook delivery of `size` bytes, signed as `codespar.web.edge.verify_delivery` asks for."""
    body = json.dumps({"text": padded(delivery, size - 12)}).encode()
    now = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"{now}.{delivery}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Codespar-Timestamp": now, "X-Codespar-Signature": f"sha256={digest}"}
    return request(f"/webhooks/{source}", body, headers | {"X-Codespar-Delivery": delivery})


def message(token: str, project: str, delivery: str, content: str, *, wait: bool = True) -> bytes:
    """A message as a client of the API posts it, with or without waiting for its answers."""
    body = {"content": content, "project": project, "thread": "bench", "id": delivery, "wait": wait}
    return request("/api/v1/messages", json.dumps(body).encode(), {"Authorization": f"Bearer {token}"})


def measure(port: int, requests: list[bytes], connections: int) -> Measured:
    """Send the requests from a process of its own, `connections` at a time. Raises `RuntimeError` for an answer that is no success."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        return apart.submit(_send_all, port, requests, connections).result()


def _send_all(port: int, requests: list[bytes], connections: int) -> Measured:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, requests, connections))


async def _run(port: int, requests: list[bytes], connections: int) -> Measured:
    loop = asyncio.get_running_loop()
    rest, latencies = iter(requests), list[float]()
    ends = [loop.create_future() for _ in range(connections)]
    clients: list[_Connection] = []
    for end in ends:
        _, client = await loop.create_connection(
            lambda end=end: _Connection(rest, latencies, end), "127.0.0.1", port
        )
        clients.append(client)
    skipped = int(len(requests) * WARM)
    for client in clients:
        client.send_next()
    async with asyncio.timeout(SLOWEST):
        while len(latencies) < skipped:
            await asyncio.sleep(0.001)
            for end in ends:
                if end.done():
                    end.result()
        before, began = len(latencies), time.perf_counter()
        await asyncio.gather(*ends)
    counted = latencies[before:]
    return Measured(rate=len(counted) / (time.perf_counter() - began), latencies=tuple(counted))


class _Connection(asyncio.Protocol):
    """Sends, waits for the whole answer, sends the next."""

    def __init__(self, rest: Iterator[bytes], latencies: list[float], end: asyncio.Future[None]) -> None:
        self._rest = rest
        self._latencies = latencies
        self._end = end
        self._got = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes

    def send_next(self) -> None:
        following = next(self._rest, None)
        if following is None:
            self._transport.close()
            if not self._end.done():
                self._end.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        self._got += data
        at = self._got.find(b"\r\n\r\n")
        if at < 0:
            return
        head = self._got[:at].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self._got) < at + 4 + length:
            return
        if head[9:10] != b"2":
            self._fail(self._got[:2000].decode(errors="replace"))
            return
        self._latencies.append(time.perf_counter() - self._sent)
        self._got = b""
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed a connection: {exc}")

    def _fail(self, why: str) -> None:
        if not self._end.done():
            self._end.set_exception(RuntimeError(why))


def p99_figure(name: str, ours: list[Measured], bare: list[Measured], limit_ms: float) -> dict[str, Any]:
    """The figure of the 99th percentile, in milliseconds, beside the peer's: medians of the rounds."""
    p99, peer = (statistics.median(one.p99 for one in kind) for kind in (ours, bare))
    return {
        "name": name,
        "value": round(p99, 1),
        "unit": "ms",
        "against": f"the bare handler's: {peer:.1f} ms",
        "ratio": round(p99 / peer, 2),
        "goal": f"<= {limit_ms} ms",
        "ok": p99 <= limit_ms,
    }
