"""GitHub's own OpenAPI document as a judge of every request: npm `@stoplight/prism-cli` before the endpoints that we use.

It is stateless, and answers with the document's examples: what it says of a request counts, what it answers does not. A request to an
endpoint that is not among `endpoints` is answered 404 with a `NO_PATH_MATCHED_ERROR`. The whole document takes 16 s to load; the endpoints
that we use are cut out of it word by word, with what they refer to, and take about 2 s.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.github import description, node, stop, wait_for
from support.github.front import Front, Noted
from support.ports import free_port


class Prism:
    """Judges what comes to `front.url`. `endpoints` are `METHOD /path/{template}` as the document writes them;
    `swaps` are patterns and what is put in their place, so that its examples fit a test."""

    def __init__(self, folder: Path, endpoints: Iterable[str], *swaps: tuple[str, str]) -> None:
        self.endpoints = sorted(endpoints)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._swaps = swaps
        # the document knows JSON alone, where GitHub takes its own media types too; its links lead to the real GitHub
        self.front = Front(instead={"accept": "application/json"}, without={"link", "location"})

    def __enter__(self) -> Prism:
        document = self._folder / "openapi.json"
        text = json.dumps(cut(description(), self.endpoints))
        for old, new in self._swaps:
            text = re.sub(old, new, text)
        document.write_text(text)
        port, log = free_port(), self._folder / "prism.log"
        script = "@stoplight/prism-cli/dist/index.js"
        self._process = node(script, "mock", "-p", str(port), str(document), log=log)
        wait_for(self._process, port, log, 120)
        self.front.behind = port
        self.front.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.front.__exit__()
        if self._process is not None:
            stop(self._process)

    def used(self) -> set[str]:
        """The endpoints that were asked so far."""
        return {self.endpoint(one) for one in self.front.noted}

    def endpoint(self, noted: Noted) -> str:
        """Which endpoint a request was for; the request itself where there is none."""
        for endpoint in sorted(self.endpoints, key=lambda one: one.count("{")):
            method, _, template = endpoint.partition(" ")
            pattern = re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template))
            if method == noted.method and re.fullmatch(pattern, noted.path):
                return endpoint
        return noted.line


def cut(document: dict[str, Any], endpoints: Iterable[str]) -> dict[str, Any]:
    """The document with these endpoints alone. KeyError names one that it does not have."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        method, _, path = endpoint.partition(" ")
        there = document["paths"][path]
        kept = paths.setdefault(path, {"parameters": there["parameters"]} if "parameters" in there else {})
        kept[method.lower()] = there[method.lower()]
    components: dict[str, dict[str, Any]] = {}
    waiting = [json.dumps(paths)]
    while waiting:
        for kind, name in re.findall(r'"#/components/([^/"]+)/([^/"]+)"', waiting.pop()):
            if name not in components.setdefault(kind, {}):
                components[kind][name] = document["components"][kind][name]
                waiting.append(json.dumps(components[kind][name]))
    return {
        "openapi": document["openapi"],
        "info": document["info"],
        "servers": document["servers"],
        "paths": paths,
        "components": components,
    }
