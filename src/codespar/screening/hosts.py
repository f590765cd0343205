"""Hosts that only this network knows, named in text: they are pointed out, not removed.

Pure. A public name is none of them, nor is this machine itself (`localhost`), which tells nobody anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network

SUFFIXES = ("internal", "intranet", "corp", "lan", "local", "localdomain", "home.arpa", "svc", "consul")
"""The last labels of names that no public name server answers for."""
NETWORKS = tuple(
    ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        *("169.254.0.0/16", "fe80::/10"),  # link-local, and with it the clouds' metadata
        "100.64.0.0/10",  # shared address space: overlay networks, a cloud's metadata
        "168.63.129.16/32",  # Azure's host
        "fc00::/7",  # unique local
    )
)
_ADDRESS = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"
    r"|(?<![\w:.])(?:f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]|:(?::0)?:ffff):[0-9a-f:.]{1,40}",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?<![\w.-])(?:[a-z0-9_][a-z0-9_-]{0,62}\.){1,8}(?:"
    + "|".join(re.escape(suffix) for suffix in SUFFIXES)
    + r")(?![\w-]|\.\w|\()",
    re.IGNORECASE | re.ASCII,
)
_SUFFIX_SEEN = re.compile(rf"\.(?:{'|'.join(re.escape(suffix) for suffix in SUFFIXES)})(?!\w)", re.IGNORECASE)
_ADDRESS_SEEN = re.compile(r"\d\.\d{1,3}\.\d|(?<![\w:])f[cde][0-9a-f]{2}:|:ffff:", re.IGNORECASE)
_OBJECTS = frozenset({"self", "this", "cls", "threading", "asyncio", "np", "torch"})


class Hosts:
    """Finds internal hosts. `own` are further names that are internal; `allowed` are never pointed out, nor what is below them."""

    def __init__(self, own: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        names = sorted({_plain(name) for name in own if name.strip()})
        self._own = (
            re.compile(
                rf"(?<![\w.-])(?:{'|'.join(re.escape(name) for name in names)})(?![\w-]|\.\w)", re.IGNORECASE
            )
            if names
            else None
        )
        self._allowed = frozenset(_plain(name) for name in allowed)

    def suspicious(self, text: str) -> bool:
        """Whether a closer look is worth it."""
        return (
            _ADDRESS_SEEN.search(text) is not None
            or _SUFFIX_SEEN.search(text) is not None
            or (self._own is not None and self._own.search(text) is not None)
        )

    def named_in(self, text: str, *, code: bool = False) -> list[str]:
        """The internal hosts that a text names, in order, each once. In `code` a bare `x.local` is an attribute, not a host."""
        if not self.suspicious(text):
            return []
        found: dict[str, None] = {}
        for _, name in sorted(self._candidates(text, code)):
            if not self._is_allowed(name):
                found.setdefault(name, None)
        return list(found)

    def _candidates(self, text: str, code: bool) -> Iterator[tuple[int, str]]:
        for match in _ADDRESS.finditer(text):
            if address := _internal_address(match[0]):
                yield match.start(), address
        for match in _NAME.finditer(text):
            if not code or _stands_as_host(text, match):
                yield match.start(), _plain(match[0])
        if self._own is not None:
            for match in self._own.finditer(text):
                yield match.start(), _plain(match[0])

    def _is_allowed(self, name: str) -> bool:
        labels = name.split(".")
        return name in self._allowed or any(
            ".".join(labels[start:]) in self._allowed for start in range(1, len(labels))
        )


def _plain(name: str) -> str:
    return name.strip().strip(".").lower()


def _internal_address(written: str) -> str | None:
    for candidate in (written, written.rstrip(":."), written.rstrip(".").removesuffix(":")):
        try:
            address = ip_address(candidate)
        except ValueError:
            continue
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address) if any(address in network for network in NETWORKS) else None
    return None


def _stands_as_host(text: str, match: re.Match[str]) -> bool:
    before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 2]
    if match[0].lower().split(".")[0] in _OBJECTS:
        return False
    return (
        before.endswith(("//", "@"))
        or before[-1:] in ("'", '"', "`")
        or re.match(r":\d|/", after) is not None
        or match[0].count(".") > 1
        or not match[0].lower().endswith((".local", ".internal"))
    )
