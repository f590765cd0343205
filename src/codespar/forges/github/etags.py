"""Answers kept with their ETags: to ask again costs no quota while nothing changed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import httpx

_LARGEST = 4 * 2**20  # bytes of one answer worth keeping
_READ = ("etag", "link", "content-type")  # of its headers


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `response` is open and unread for a stream, and closed otherwise."""

    status: int
    headers: httpx.Headers
    body: bytes
    response: httpx.Response


class Etags:
    """The answers asked for most lately. They are kept as bytes, so that no caller can change what another gets, and without the connection
    they came by. Every repository has its own: the bounds are for one among a hundred."""

    def __init__(self, entries: int = 300, size: int = 8 * 2**20) -> None:
        self._entries = entries
        self._size = size  # bytes in all
        self._kept: OrderedDict[tuple[str, str], Answer] = OrderedDict()
        self._held = 0

    def get(self, url: str, accept: str) -> Answer | None:
        answer = self._kept.get((url, accept))
        if answer is not None:
            self._kept.move_to_end((url, accept))
        return answer

    def forget(self, url: str, accept: str) -> None:
        if (old := self._kept.pop((url, accept), None)) is not None:
            self._held -= len(old.body)

    def put(self, url: str, accept: str, answer: Answer) -> None:
        key = (url, accept)
        self.forget(url, accept)
        if "etag" not in answer.headers or len(answer.body) > min(_LARGEST, self._size):
            return
        headers = httpx.Headers({name: answer.headers[name] for name in _READ if name in answer.headers})
        self._kept[key] = Answer(answer.status, headers, answer.body, httpx.Response(answer.status))
        self._held += len(answer.body)
        while self._held > self._size or len(self._kept) > self._entries:
            _, oldest = self._kept.popitem(last=False)
            self._held -= len(oldest.body)
