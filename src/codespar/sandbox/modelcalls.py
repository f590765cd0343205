"""What a container asks of the model, as far as the gateway judges it. It must never be read in another way than the vendor reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def read_call(body: bytes) -> tuple[str, str]:
    """The model that a call of the Messages API names, and what in it reaches into the network (empty where nothing does).

    Raises `ValueError` where it is no such call.
    """
    try:
        call = json.loads(body, object_pairs_hook=_once)
        if not isinstance(call, dict):
            raise ValueError("it is no JSON object")
        return str(call.get("model")), _outside(call)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a request. Two readers of a key that stands twice need not agree on which one counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _outside(call: dict[str, Any]) -> str:
    """What in a call the vendor would fetch, or send what it was told to, from or to an address of the caller's choice; empty where nothing
    is. A container without network must not have one by this way."""
    if call.get("mcp_servers"):
        return "mcp_servers"
    for tool in _objects(call.get("tools")):
        kind = str(tool.get("type"))
        if kind.startswith(("web_", "mcp_")):
            return kind[:60]
    for message in [*_objects(call.get("messages")), {"content": call.get("system")}]:
        for block in _blocks(message.get("content")):
            source = block.get("source")
            if isinstance(source, dict) and source.get("type") == "url":
                return f"a {str(block.get('type'))[:40]} by its URL"
    return ""


def _blocks(content: Any) -> Iterator[dict[str, Any]]:
    """Blocks of content, with those inside them."""
    for block in _objects(content):
        yield block
        yield from _blocks(block.get("content"))
        source = block.get("source")
        yield from _blocks(source.get("content")) if isinstance(source, dict) else ()


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
