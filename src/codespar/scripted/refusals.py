"""What the vendor's present models refuse, and the thinking that has to come back to them unchanged.

A scripted model that took what the real one refuses would show nothing. The rules are those of the vendor's guides for moving to Claude
Sonnet 5.5 and Haiku 5.5 (platform.claude.com/docs/en/models, November 2026); the words of the refusals are the vendor's own where they
are known.
"""

from __future__ import annotations

import hashlib
from typing import Any

ALWAYS_FREE = (
    "claude-fable-5-1",
    "claude-fable-5-2",
    "claude-mythos-5-1",
    "claude-mythos-5-2",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
)
"""These take no forced choice of a tool either, and their thinking cannot be switched off by `disabled`."""
THINKING = (
    *ALWAYS_FREE,
    "claude-fable-5",
    "claude-mythos-5",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-haiku-5-5",
)
"""These think unless they are told not to, as much as they see fit."""
SAMPLING = {"temperature": 1, "top_p": 1, "top_k": None}  # and the only value that may be given


def refusal(body: dict[str, Any], beta: str = "") -> str | None:
    """Why the model that a request to the Messages API names refuses it with a 400; None when it takes it. `beta` is its header of that
    name.
    """
    model = str(body.get("model"))
    if "context_management" in body and "context-management-" not in beta:
        return "context_management: Extra inputs are not permitted"
    if not model.startswith(THINKING):
        return None
    thinking, choice = _kind(body.get("thinking")), _kind(body.get("tool_choice"))
    if thinking == "enabled":
        return (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and'
            ' "output_config.effort" to control thinking behavior.'
        )
    if thinking == "disabled" and model.startswith(ALWAYS_FREE):
        return '"thinking.type.disabled" is not supported for this model.'
    if thinking == "between_tools" and not model.startswith("claude-sonnet-5-5"):
        return '"thinking.type.between_tools" is not supported for this model.'
    if choice in ("any", "tool") and model.startswith(ALWAYS_FREE):
        return 'tool_choice: type "tool" and "any" are not supported for this model.'
    for name, only in SAMPLING.items():
        if body.get(name) not in (None, only):
            return f"`{name}` is deprecated for this model."
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    if isinstance(last, dict) and last.get("role") == "assistant":
        return "This model does not support assistant message prefill. The conversation must end with a user message."
    return None


def thinks(body: dict[str, Any]) -> bool:
    """Whether the answer to a request begins with a thinking block."""
    off = _kind(body.get("thinking")) in ("disabled", "between_tools")
    forced = _kind(body.get("tool_choice")) in ("any", "tool")
    return str(body.get("model")).startswith(THINKING) and not off and not forced


def thought(model: str, name: str) -> dict[str, Any]:
    """The thinking block of the answer of this name: its text is left out, as it is unless one asks for it, and its signature binds it."""
    signature = hashlib.sha256(f"{model}\0{name}".encode()).hexdigest()
    return {"type": "thinking", "thinking": "", "signature": signature}


def foreign_thought(model: str, messages: list[dict[str, Any]], names: list[str]) -> str | None:
    """Why a request is refused whose thinking blocks are not as they were given; `names` are those of the answers that it repeats."""
    said = [message.get("content") for message in messages if message.get("role") == "assistant"]
    for number, (parts, name) in enumerate(zip(said, names, strict=True)):
        for part in parts if isinstance(parts, list) else ():
            if part.get("type") == "thinking" and part != thought(model, name):
                return f"messages: Invalid `signature` in `thinking` block of answer {number}"
    return None


def _kind(setting: object) -> str | None:
    return setting.get("type") if isinstance(setting, dict) else None
