"""From Slack's payloads to `Heard`. Pure: no network, no clock.

What is ignored on purpose gives None: bots, ourselves, edits, deletions, joins, and what was said in a room without naming us. A name that
comes with a payload is data and never an identity; the identity is `<team>:<user>`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from codespar.channels.base import Heard, Offered

Payload = Mapping[str, Any]

_SUBTYPES = {
    None,
    "file_share",
    "thread_broadcast",
    "me_message",
}  # what people write; the rest is about messages
_MARK = re.compile(r"<([^<>\n]*)>")
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_GONE_FILES = {"tombstone", "hidden_by_limit"}
NAME = 80


@dataclass(frozen=True)
class Us:
    """Who we are in one workspace."""

    team: str
    bot_user: str


@dataclass(frozen=True)
class Question:
    """A button that asks for a line of text first: what its form is made of."""

    trigger: str
    asks: str
    label: str
    metadata: str  # what the form carries until it is answered


def team_of(body: Payload) -> str:
    """The workspace (or, for an installation of a whole organization, that) through which we were told; empty when it is not said."""
    for authorization in body.get("authorizations") or ():
        if found := authorization.get("team_id") or authorization.get("enterprise_id"):
            return str(found)
    team: Payload = body.get("team") or {}
    enterprise: Payload = body.get("enterprise") or {}
    view: Payload = body.get("view") or {}
    found = (
        team.get("id")
        or body.get("team_id")
        or view.get("app_installed_team_id")
        or enterprise.get("id")
        or body.get("enterprise_id")
    )
    return str(found or "")


def message(body: Payload, us: Us) -> Heard | None:
    """What an `event_callback` of a message or a mention says."""
    event: Payload = body.get("event") or {}
    kind = event.get("type")
    user, channel, ts = event.get("user"), event.get("channel"), event.get("ts")
    if kind not in ("message", "app_mention") or event.get("subtype") not in _SUBTYPES:
        return None
    if not user or not channel or not ts or user == us.bot_user:
        return None
    if event.get("bot_id") or event.get("edited") or event.get("hidden"):
        return None
    direct = event.get("channel_type") == "im" or (kind == "message" and str(channel).startswith("D"))
    text = str(event.get("text") or "")
    if not direct and kind == "message" and not _mentions(text, us):
        return None
    parent = event.get("thread_ts")
    return Heard(
        delivery=_delivery("message", us.team, channel, ts),
        channel="slack",
        conversation=f"{us.team}:{channel}",
        thread_id=parent or (None if direct else ts),
        message_id=str(ts),
        **_sender(us, user, event.get("user_team") or event.get("team")),
        content=words(text, us),
        direct=direct,
        addressed=True,
        offered=_offered(event.get("files") or (), us),
        reply_to=str(parent) if parent and parent != ts else None,
        at=_moment(ts),
    )


def press(body: Payload, us: Us) -> Heard | Question | None:
    """What a `block_actions` says: a command, or a question that has to be asked first. None: not one of our buttons."""
    for action in body.get("actions") or ():
        if action.get("type") == "button" and str(action.get("action_id", "")).startswith("codespar-"):
            break
    else:
        return None
    behind = _unpacked(action.get("value"))
    command = behind.get("command", "")
    container: Payload = body.get("container") or {}
    shown: Payload = body.get("message") or {}
    channel = (body.get("channel") or {}).get("id") or container.get("channel_id")
    ts = shown.get("ts") or container.get("message_ts")
    user: Payload = body.get("user") or {}
    if not command or not channel or not ts or not user.get("id"):
        return None
    direct = str(channel).startswith("D")
    thread = shown.get("thread_ts") or container.get("thread_ts") or (None if direct else ts)
    if asks := behind.get("asks"):
        carried = {"command": command, "channel": str(channel), "message": str(ts)}
        return Question(
            trigger=str(body.get("trigger_id", "")),
            asks=asks,
            label=behind.get("label", ""),
            metadata=packed_value(carried | ({"thread": str(thread)} if thread else {})),
        )
    pressed = str(action.get("action_ts") or "")
    return Heard(
        delivery=_delivery("press", us.team, channel, ts, action["action_id"], user["id"], pressed),
        channel="slack",
        conversation=f"{us.team}:{channel}",
        thread_id=thread,
        message_id=str(ts),
        **_sender(us, user["id"], user.get("team_id"), user.get("name") or user.get("username")),
        content=command,
        direct=direct,
        addressed=True,
        via="button",
        reply_to=str(ts),
        at=_moment(pressed or ts),
    )


def form(body: Payload, us: Us, now: datetime) -> Heard | None:
    """What a `view_submission` says: the command that the form carries, and the answer behind it."""
    view: Payload = body.get("view") or {}
    user: Payload = body.get("user") or {}
    carried = _unpacked(view.get("private_metadata"))
    if view.get("callback_id") != "codespar" or not carried.get("command") or not user.get("id"):
        return None
    channel = carried.get("channel", "")
    values: Payload = (view.get("state") or {}).get("values") or {}
    answer = str(((values.get("answer") or {}).get("answer") or {}).get("value") or "").strip()
    return Heard(
        delivery=_delivery("form", us.team, view.get("id")),
        channel="slack",
        conversation=f"{us.team}:{channel}",
        thread_id=carried.get("thread"),
        message_id=carried.get("message", ""),
        **_sender(us, user["id"], user.get("team_id"), user.get("name") or user.get("username")),
        content=f"{carried['command']} {answer}".strip(),
        direct=channel.startswith("D"),
        addressed=True,
        via="form",
        reply_to=carried.get("message"),
        at=now,
    )


def command(body: Payload, us: Us, now: datetime) -> Heard | None:
    """What a slash command says. It stands in no thread: its answer goes to the channel."""
    channel, user = body.get("channel_id"), body.get("user_id")
    if not channel or not user:
        return None
    return Heard(
        delivery=_delivery("command", us.team, body.get("trigger_id"), user),
        channel="slack",
        conversation=f"{us.team}:{channel}",
        **_sender(us, user, body.get("team_id"), body.get("user_name")),
        content=words(str(body.get("text") or ""), us),
        direct=str(channel).startswith("D"),
        addressed=True,
        via="command",
        at=now,
    )


def words(text: str, us: Us) -> str:
    """A message's text as it was typed: our mention taken out, Slack's own marks resolved."""

    def resolved(found: re.Match[str]) -> str:
        inside, _, label = found[1].partition("|")
        if inside.startswith("@"):
            return "" if inside[1:] == us.bot_user else f"@{label or inside[1:]}"
        if inside.startswith("#"):
            return f"#{label or inside[1:]}"
        if inside.startswith("!"):
            return label or "@" + inside[1:].split("^")[0]
        if not label or label == inside:
            return inside.removeprefix("mailto:").removeprefix("tel:")
        # what is typed as `example.org/a` comes as `<http://example.org/a|example.org/a>`
        return label if inside.endswith(label) else f"{label} ({inside})"

    return html_unescaped(_MARK.sub(resolved, text)).strip()


def html_unescaped(text: str) -> str:
    """Slack escapes these three and nothing else."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def packed_value(value: Mapping[str, str]) -> str:
    """JSON that survives Slack's escaping of `&`, `<` and `>` in what it sends back."""
    text = json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
    for char in "&<>":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def display_name(name: str, otherwise: str) -> str:
    """A name that is safe to show: no control characters, at most 80 characters, never empty."""
    kept = "".join(" " if char in "\n\t" else char for char in name if _shown(char))
    return " ".join(kept.split())[:NAME] or otherwise[:NAME] or "?"


def profile_name(answer: Payload) -> str:
    """The name that people see of a user, from an answer of users.info."""
    user: Payload = answer.get("user") or {}
    profile: Payload = user.get("profile") or {}
    return str(
        profile.get("display_name")
        or profile.get("real_name")
        or user.get("real_name")
        or user.get("name")
        or ""
    )


def _shown(char: str) -> bool:
    return char in "\n\t" or (
        unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn") and char not in _BIDI
    )


def _mentions(text: str, us: Us) -> bool:
    return re.search(rf"<@{re.escape(us.bot_user)}(\|[^<>]*)?>", text) is not None


def _sender(us: Us, user: Any, team: Any, name: Any = "") -> dict[str, Any]:
    """A person of another workspace (a shared channel) is known by their own, and by ours too."""
    home = str(team or us.team)
    return {
        "sender": f"{home}:{user}",
        "also": (f"{us.team}:{user}",) if home != us.team else (),
        "sender_name": display_name(html_unescaped(str(name or "")), str(user)),
    }


def _offered(files: Any, us: Us) -> tuple[Offered, ...]:
    found: list[Offered] = []
    for file in files:
        if file.get("mode") in _GONE_FILES:
            continue
        address = file.get("url_private_download") or file.get("url_private") or file.get("id")
        if address:
            found.append(
                Offered(
                    name=display_name(
                        str(file.get("name") or file.get("title") or ""), str(file.get("id", "file"))
                    ),
                    ref=f"{us.team} {address}",
                    media_type=str(file.get("mimetype") or ""),
                    size=file["size"] if isinstance(file.get("size"), int) and file["size"] > 0 else None,
                )
            )
    return tuple(found)


def _unpacked(value: Any) -> dict[str, str]:
    try:
        found: Any = json.loads(value or "{}")
    except ValueError:
        return {}  # a button that is not ours
    return (
        {key: text for key, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}
    )


def _delivery(kind: str, *parts: Any) -> str:
    text = ":".join(["slack", kind, *(str(part) for part in parts)])
    return text if len(text) <= 190 else f"slack:{kind}:{hashlib.sha256(text.encode()).hexdigest()}"


def _moment(ts: Any) -> datetime:
    return datetime.fromtimestamp(float(ts), UTC)
