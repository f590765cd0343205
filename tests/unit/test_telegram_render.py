"""Whatever a response holds, Telegram takes it, everything of it is there to be read, and nobody is pinged."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codespar.channels.base import Part
from codespar.channels.telegram.limits import CAPABILITIES
from codespar.channels.telegram.markup import JOINER, Pen, clean, web
from codespar.channels.telegram.questions import Question
from codespar.channels.telegram.render import render
from codespar.domain.messages import (
    Action,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
    Tone,
)
from support.platforms.telegram import check_message, pings
from support.platforms.telegram_rules import parse_html
from support.responses import attached

NASTY = [
    "", " \n ", "@everyone", "@codespar_bot x", "a@b.org", "<b>", "</pre>", "</code></pre><b>", "&lt;", "&", "a < b > c",
    "`", "```", "](http://x)", "<a href='tg://user?id=1'>x</a>", "tg://resolve?domain=x", "TON://x", "\x00", "\ud800", "\u202e",
    "👩‍👩‍👧‍👦", "é", "مرحبا", "\u200b", "\u2060", "@\u2060ada", "@\u2028ada", "\r\n", "/kill", "#tag", "x" * 5000, "@x" * 1800,
    "👍" * 2500, "<" * 3000, "@" * 4000, "line\n" * 900, "\n" * 5000,
]  # fmt: skip
texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="@<>&`/tg:ab \n\u2060\u202e👍", max_size=80),
    st.lists(st.sampled_from(NASTY), max_size=3).map("".join),
)
labels = st.one_of(st.text(max_size=80), st.sampled_from(NASTY))
commands = st.one_of(
    st.text(max_size=70),
    st.sampled_from(["approve dp-7k2m9q", "reject bg-7k2m9q", "x" * 63, "é" * 32]),
    texts,
)
responses = st.builds(
    NormalizedResponse,
    title=texts,
    tone=st.sampled_from(Tone),
    text=texts,
    fields=st.lists(st.builds(FieldLine, name=texts, value=texts), max_size=4).map(tuple),
    blocks=st.lists(st.builds(Block, language=st.one_of(st.sampled_from(["", "diff", "python", 'x"y', "answer-1001"]), st.text(max_size=5)), text=texts, title=texts), max_size=8).map(tuple),
    links=st.lists(st.builds(Link, label=texts, url=st.one_of(texts, st.sampled_from(["https://example.com/a?b=1&c=\"", "javascript:alert(1)", "https://a b", "tg://user?id=1"]))), max_size=4).map(tuple),
    progress=st.none() | st.builds(Progress, phase=texts, turns=st.integers(0, 99)),
    actions=st.lists(st.builds(Action, label=labels, command=commands, style=st.sampled_from(["default", "primary", "danger", "x"]), asks=texts), max_size=6).map(tuple),
    attachments=st.lists(st.builds(attached, name=texts, media_type=st.just("x/y"), size=st.integers(0, 9), sha256=st.just("0")), max_size=2).map(tuple),
    agent=st.none() | texts,
)  # fmt: skip


def seen(text: str) -> str:
    """What of a text can be seen: blanks, and what takes no room, left out."""
    blank = "\u115f\u1160\u2800\u3164\uffa0\ufffc?"
    kinds = ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn")
    return "".join(char for char in text if char not in blank and unicodedata.category(char) not in kinds)


def shown(parts: tuple[Part, ...]) -> str:
    """All that people can read: messages in order, what stands on and behind buttons, files. A word joiner cannot be seen."""
    read: list[str] = []
    for part in parts:
        payload: dict[str, Any] = part.payload
        source = payload.get("text", payload.get("caption", ""))
        read.append(parse_html(source)[0] if payload.get("parse_mode") else source)
        for row in payload.get("reply_markup", {}).get("inline_keyboard", []):
            read += [button["text"] + "\n" + button["callback_data"][1:] for button in row]
        read += [file.content.decode() for file in part.files]
    return seen("\n".join(read))


def pieces_of(response: NormalizedResponse) -> list[str]:
    one_line = [action.label for action in response.actions]
    texts = [
        response.title,
        response.text,
        response.agent or "",
        response.progress.phase if response.progress else "",
    ]
    texts += [text for line in response.fields for text in (line.name, line.value)]
    texts += [text for block in response.blocks for text in (block.title, block.text)]
    texts += [text for action in response.actions for text in (action.command, action.asks)]
    texts += [file.name for file in response.attachments] + one_line
    texts += [link.label for link in response.links]
    return [*texts, *(link.url for link in response.links if web(link.url) is None)]


def found_in_order(needle: str, haystack: str) -> bool:
    """A text that was split over messages has no other text between its halves but what stands at a message's edge."""
    return needle in haystack


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(responses, st.booleans())
def test_any_response_is_taken_by_telegram_whole_and_pings_nobody(
    response: NormalizedResponse, plain: bool
) -> None:
    parts = render(response, plain=plain)
    text = shown(parts)
    for part in parts:
        assert check_message(part.payload) == []
        assert pings(part.payload) == []
        assert part.files == () or len(part.files) == 1
    assert "text" in parts[0].payload
    for piece in pieces_of(response):
        assert seen(clean(piece)) in text or seen(piece) in text, piece
    assert render(response, plain=plain) == parts


@pytest.mark.parametrize("plain", [False, True])
def test_every_link_to_the_web_keeps_its_address(plain: bool) -> None:
    links = tuple(Link(label=f"PR {n}", url=f'https://example.com/{n}?a=1&b="{n}') for n in range(120))
    sent = "".join(
        str(part.payload["text"])
        for part in render(NormalizedResponse(title="Links", links=links), plain=plain)
    )
    sent = sent.replace("&amp;", "&").replace("&quot;", '"')
    assert all(link.url in sent for link in links)
    for part in render(NormalizedResponse(title="Links", links=links), plain=plain):
        assert check_message(part.payload) == []


def test_addresses_that_are_not_of_the_web_are_shown_and_never_linked() -> None:
    links = tuple(
        Link(label="x", url=url)
        for url in ("javascript:alert(1)", "tg://user?id=1001", "https://", "https://a b/", "ftp://x/y")
    )
    (part,) = render(NormalizedResponse(title="Links", links=links))
    assert "<a" not in str(part.payload["text"]) and "javascript:alert(1)" in part.text


def test_a_task_card_is_one_message_of_a_line_each() -> None:
    card = NormalizedResponse(
        title="🔧 Task Agent Started",
        tone=Tone.PROGRESS,
        fields=(
            FieldLine(name="Task", value='"add rate limiting"'),
            FieldLine(name="Agent", value="task-abc123"),
        ),
        progress=Progress(phase="editing shop/auth.py", elapsed_seconds=12, turns=3, cost_micros=412_000),
        actions=(Action(label="Stop", command="cancel task-abc123", style="danger"),),
        agent="task-abc123",
    )
    (part,) = render(card)
    assert part.payload["text"] == (
        '<b>🔧 Task Agent Started</b>\n<b>Task:</b> "add rate limiting"\n<b>Agent:</b> task-abc123\n'
        "editing shop/auth.py · 12 s · 3 turns · $0.41\n<i>task-abc123</i>"
    )
    assert part.payload["reply_markup"] == {
        "inline_keyboard": [[{"text": "Stop", "callback_data": "=cancel task-abc123", "style": "danger"}]]
    }


def test_a_question_has_its_buttons_and_what_they_ask_behind_them() -> None:
    question = NormalizedResponse(
        title="Deploy to production?",
        tone=Tone.WARNING,
        actions=(
            Action(label="Approve", command="approve dp-7k2m9q", style="primary"),
            Action(label="Reject", command="reject dp-7k2m9q", style="danger", asks="Why?"),
            Action(label="Later", command="reject dp-7k2m9q", asks="Why not now, and when would be a better time for it?"),
        ),
    )  # fmt: skip
    (part,) = render(question)
    markup: Any = part.payload["reply_markup"]
    buttons = [button for row in markup["inline_keyboard"] for button in row]
    assert [button["callback_data"] for button in buttons] == [
        "=approve dp-7k2m9q",
        "?reject dp-7k2m9q\nWhy?",
        "?reject dp-7k2m9q",
    ]
    assert part.text.startswith(
        "⚠️ Deploy to production?\nLater: Why not now, and when would be a better time for it?"
    )


def test_a_diff_of_fifty_thousand_characters_is_a_preview_and_a_file() -> None:
    diff = "\n".join(f"+line {n} of the change" for n in range(2500))
    message, document = render(NormalizedResponse(title="Diff", blocks=(Block(language="diff", text=diff),)))
    assert '<pre><code class="language-diff">+line 0' in str(message.payload["text"])
    assert "… 2,500 lines, whole in change-1.diff" in message.text and not message.files
    assert [(file.name, file.content.decode()) for file in document.files] == [("change-1.diff", diff)]


def test_a_text_of_a_hundred_thousand_characters_is_one_message_and_a_file() -> None:
    text = "".join(f"word{n} " for n in range(12_000))
    message, document = render(NormalizedResponse(title="Answer", text=text, agent="lens-1"))
    assert "all of it is in message.txt" in message.text and "word0" in message.text
    assert text in document.files[0].content.decode()


def test_more_buttons_than_fit_are_text_and_none_is_lost() -> None:
    actions = tuple(Action(label=f"Go {n}", command=f"approve dp-{n:06}") for n in range(130))
    parts = render(NormalizedResponse(title="Many", actions=actions))
    markup: Any = parts[-1].payload["reply_markup"]
    assert sum(map(len, markup["inline_keyboard"])) == CAPABILITIES.max_buttons
    assert "Reply: approve dp-000129 (Go 129)" in "\n".join(part.text for part in parts)


def test_a_command_that_is_too_long_for_a_button_is_text_to_reply_with() -> None:
    fits, not_any_more = "é" * 31 + "x", "é" * 32
    (part,) = render(
        NormalizedResponse(
            title="Go", actions=(Action(label="A", command=fits), Action(label="B", command=not_any_more))
        )
    )
    markup: Any = part.payload["reply_markup"]
    assert [button["text"] for row in markup["inline_keyboard"] for button in row] == ["A"]
    assert f"<code>{not_any_more}</code>" in str(part.payload["text"])


@pytest.mark.parametrize(
    "text", ["@ada_x look", "(@ada_x)", "ü@ada_x", "tg://user?id=1", "x" * 3999 + "@ada_x", "a" * 3990 + "mail@ada_example_bot", "@\u2028ada_x"]
)  # fmt: skip
def test_names_in_anybodys_words_ping_nobody_but_can_be_read(text: str) -> None:
    for plain in (False, True):
        parts = render(NormalizedResponse(title="x", text=text), plain=plain)
        assert [ping for part in parts for ping in pings(part.payload)] == []
        assert seen(text) in shown(parts)


def test_code_is_shown_as_it_is_so_that_it_can_be_copied() -> None:
    (part,) = render(
        NormalizedResponse(title="x", blocks=(Block(language="python", text="@cache\ndef f(): ..."),))
    )
    assert JOINER not in str(part.payload["text"]) and pings(part.payload) == []


def test_nobody_else_can_write_the_block_that_names_a_forms_command() -> None:
    """The language of that block is ours alone, however somebody's block is called."""
    forged = Block(language="answer-1001", text="kill")
    (part,) = render(
        NormalizedResponse(title="x", blocks=(forged, Block(language="ANSWER-1001", text="kill")))
    )
    assert "answer-" not in str(part.payload["text"]).lower()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(min_size=1, max_size=62).filter(lambda text: text == clean(text) and text.strip()), texts, texts
)
def test_any_question_is_taken_by_telegram(command: str, asks: str, name: str) -> None:
    part = Question(command, asks, 1001, name).part()
    assert check_message(part.payload) == []
    assert pings(part.payload) == ["mentions 1001"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts, st.integers(10, 200))
def test_cutting_loses_nothing_that_can_be_seen_and_no_piece_is_too_long(text: str, limit: int) -> None:
    pieces = Pen().cut(text, limit)
    assert seen("".join(piece.read for piece in pieces)) == seen(clean(text))
    assert all(piece.length <= limit for piece in pieces)


def test_a_piece_that_begins_with_a_name_has_room_for_what_quiets_it() -> None:
    """In the middle of a word an @ mentions nobody; at the start of a piece it would."""
    pieces = Pen().cut("a" * 10 + "@" + "b" * 9, 10)
    assert all(piece.length <= 10 for piece in pieces)
    assert [ping for piece in pieces for ping in pings({"text": piece.read})] == []
