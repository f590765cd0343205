"""What Discord shows of a response: within its limits, whole, and harmless, whatever is in it."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codespar.channels.base import Part
from codespar.channels.discord.markup import clean, escape, name
from codespar.channels.discord.render import asked, custom_id, form, render
from codespar.domain.messages import (
    Action,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
    Tone,
)
from support.platforms.discord_rules import check_message, check_modal, pings, read
from support.responses import attached

NASTY = (
    "@everyone <@1> <@&2> <#3> </deploy:4> <t:1:R>",
    "[click](https://evil.example) https://evil.example discord.gg/abc",
    "```\nout\n``` `x` ``y`` ~~~",
    "**b** __u__ ||s|| ~~d~~ # h\n# h\n- l\n> q\n-# small\n1. one",
    "\u202etxet\u202c \u200b\u200d \ud83d lone \x00 null \x1b[31m",
    "👩‍👩‍👧‍👦 é é ﷽ 🇩🇪",
    "\\",
    "a" * 300,
    "😀" * 700,
    "x" * 5000,
)
words = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=40), st.just(""), st.just("  \n "), st.just("\u200b")
)
responses = st.builds(
    NormalizedResponse,
    title=words,
    tone=st.sampled_from(list(Tone)),
    text=words,
    fields=st.lists(st.builds(FieldLine, name=words, value=words), max_size=30).map(tuple),
    blocks=st.lists(
        st.builds(Block, language=st.sampled_from(["", "diff", "a b```"]), text=words, title=words),
        max_size=4,
    ).map(tuple),
    links=st.lists(
        st.builds(
            Link,
            label=words,
            url=st.one_of(
                words,
                st.sampled_from(["https://a.example/b(c)?d=e#f", "javascript:alert(1)", "https://a b>c"]),
            ),
        ),
        max_size=4,
    ).map(tuple),
    progress=st.none() | st.builds(Progress, phase=words),
    actions=st.lists(
        st.builds(
            Action, label=words, command=words, style=st.sampled_from(["default", "danger"]), asks=words
        ),
        max_size=30,
    ).map(tuple),
    attachments=st.lists(
        st.builds(attached, name=words, media_type=words, size=st.just(7), sha256=words), max_size=2
    ).map(tuple),
    agent=st.none() | words,
)
many = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def visible(text: str) -> str:
    """What people would miss: everything but blanks and signs that show nothing."""
    return "".join(char for char in clean(text) if unicodedata.category(char)[0] not in "ZC")


def everything_in(parts: tuple[Part, ...]) -> str:
    """All that can be read in the parts: texts, buttons and what is behind them, files."""
    read_here: list[str] = []
    for part in parts:
        payload: Any = part.payload
        read_here.append(read(payload["content"]))
        for embed in payload["embeds"]:
            read_here += [read(embed.get("title", "")), read(embed.get("description", ""))]
            read_here += [read(one["name"]) + read(one["value"]) for one in embed.get("fields", [])]
            read_here.append(embed.get("footer", {}).get("text", ""))
        for row in payload["components"]:
            for button in row["components"]:
                read_here += [button["label"], button["custom_id"]]
        read_here += [file.content.decode() for file in part.files]
    return visible("".join(read_here))


def told(response: NormalizedResponse) -> list[str]:
    """Every string of a response that must be found again."""
    strings = [response.title, response.text, response.agent or ""]
    strings += [one for line in response.fields for one in (line.name, line.value)]
    strings += [one for block in response.blocks for one in (block.title, block.text)]
    strings += [link.label for link in response.links]
    strings += [one for action in response.actions for one in (action.command, action.label, action.asks)]
    strings += [one.name for one in response.attachments]
    return strings + ([response.progress.phase] if response.progress else [])


@many
@given(response=responses, plain=st.booleans())
@example(response=NormalizedResponse(title=""), plain=False)
@example(response=NormalizedResponse(title=""), plain=True)
@example(response=NormalizedResponse(title="t", text="😀`*_" * 25_000), plain=False)
@example(response=NormalizedResponse(title="t" * 100_000, text="\n" * 100_000), plain=True)
def test_every_message_is_within_discords_limits(response: NormalizedResponse, plain: bool) -> None:
    """Whatever a response holds, Discord takes each of its messages, and none of them can notify anybody."""
    parts = render(response, plain=plain)
    assert parts
    for part in parts:
        assert check_message(part.payload, len(part.files)) == []
        assert not pings(part.payload)
        assert sum(len(file.content) for file in part.files) <= 10_000_000


@many
@given(response=responses, plain=st.booleans())
def test_nothing_is_lost(response: NormalizedResponse, plain: bool) -> None:
    """Every visible character of every string is found in a text, behind a button or in a file."""
    shown = everything_in(render(response, plain=plain))
    for string in told(response):
        for line in clean(string).split("\n"):
            wanted = visible(line)
            found = wanted in shown or all(piece in shown for piece in re.findall(".{1,40}", wanted))
            assert found, (line, shown)


@given(text=words)
@settings(max_examples=300, deadline=None)
def test_escaped_text_reads_as_it_was(text: str) -> None:
    """Escaping takes nothing away: what people read is the text."""
    text = clean(text)
    assert read(escape(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "[a](https://evil.example)",
        "https://evil.example",
        "<@1>",
        "**b**",
        "||s||",
        "# big",
        "- item",
        "> quote",
        ":smile:",
        "7. seven",
    ],
)
def test_markup_in_text_is_shown_not_obeyed(text: str) -> None:
    """A link, mention, heading or emphasis in somebody's words keeps a backslash before the sign that would make it one."""
    assert escape(text) != text
    assert "\\" in escape(text)


def test_a_task_card() -> None:
    """A task's start is one card: title, facts beside each other, what it used below, and its buttons."""
    response = NormalizedResponse(
        title="🔧 Task Agent Started",
        tone=Tone.PROGRESS,
        fields=(
            FieldLine(name="Task", value="“add rate limiting”"),
            FieldLine(name="Active tasks", value="1/3"),
        ),
        links=(Link(label="PR #51", url="https://github.com/a/b/pull/51"),),
        progress=Progress(phase="writing tests", elapsed_seconds=61, turns=7, cost_micros=120_000),
        actions=(Action(label="Stop", command="cancel task-abc123", style="danger"),),
        agent="task-abc123",
    )
    (part,) = render(response)
    assert part.payload["embeds"] == [
        {
            "title": "🔧 Task Agent Started",
            "description": "[PR #51](https://github.com/a/b/pull/51)",
            "fields": [
                {"name": "Task", "value": "“add rate limiting”", "inline": True},
                {"name": "Active tasks", "value": "1/3", "inline": True},
            ],
            "footer": {"text": "task-abc123 · writing tests · 61 s · 7 turns · $0.12"},
            "color": 0x3498DB,
        }
    ]
    assert part.payload["components"] == [
        {
            "type": 1,
            "components": [{"type": 2, "style": 4, "label": "Stop", "custom_id": "cancel task-abc123"}],
        }
    ]


def test_a_question_asks_in_a_form() -> None:
    """A button that asks carries its question with its command, and the form shows it."""
    action = Action(label="Reject", command="reject dp-7k2m9q", style="danger", asks="Why?")
    behind = custom_id(action)
    assert behind is not None
    assert asked(behind) == ("Why?", "reject dp-7k2m9q")
    modal = form("Why?", "reject dp-7k2m9q", "Reject")
    assert check_modal(modal) == []
    assert (modal["title"], modal["custom_id"]) == ("Reject", "reject dp-7k2m9q")
    assert modal["components"][0]["components"][0]["label"] == "Why?"
    assert asked("status") is None


@given(question=words, command=words.filter(lambda text: 0 < len(text.strip()) <= 90), label=words)
@settings(max_examples=100, deadline=None)
def test_every_form_is_taken(question: str, command: str, label: str) -> None:
    """Whatever stands behind a button that asks, the form made from it is one that Discord takes."""
    behind = custom_id(Action(label="x", command=clean(command).strip() or "c", asks=clean(question) or "q"))
    if behind is not None:
        assert check_modal(form(*(asked(behind) or ("", "")), clean(label)[:80])) == []


def test_a_long_diff_goes_into_a_file() -> None:
    """Of a 50k diff the card shows the beginning; the whole is attached, byte by byte."""
    diff = "".join(f"+line {number} ``` of the change\n" for number in range(1700))
    (part,) = render(
        NormalizedResponse(title="Diff", blocks=(Block(language="diff", text=diff, title="PR #7"),))
    )
    (file,) = part.files
    assert (file.name, file.content.decode()) == ("change-1.diff", diff)
    shown = str(part.payload["embeds"])
    assert "+line 0 " in shown and "change-1.diff" in shown and "+line 1000 " not in shown


def test_a_file_larger_than_discord_takes_is_cut_into_several() -> None:
    """A log of 25 MB comes as three files that give it back when they are put together."""
    log = "ä line of the log\n" * 1_300_000
    parts = render(NormalizedResponse(title="Log", blocks=(Block(text=log),)))
    files = [file for part in parts for file in part.files]
    assert len(files) == 3
    assert b"".join(file.content for file in files).decode() == log
    assert all(sum(len(file.content) for file in part.files) <= 10_000_000 for part in parts)


def test_what_finds_no_button_can_be_typed() -> None:
    """Of thirty actions twenty-five are buttons, the others stand there as text; so does a command too long for a button."""
    actions = tuple(Action(label=f"Do {number}", command=f"do {number}") for number in range(30))
    long = Action(label="Long", command="instruct " + "x" * 100)
    (part,) = render(NormalizedResponse(title="Choose", actions=(*actions, long)))
    rows: Any = part.payload["components"]
    assert [len(row["components"]) for row in rows] == [5, 5, 5, 5, 5]
    assert "Do 29 · Reply: `do 29`" in str(part.payload["embeds"])
    assert f"Reply: `{long.command}`" in str(part.payload["embeds"])


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "https://", "ftp://a.example"])
def test_only_web_addresses_become_links(url: str) -> None:
    """A link that is not one of the web is shown as text."""
    (part,) = render(NormalizedResponse(title="t", links=(Link(label="Open", url=url),)))
    description = str(part.payload["embeds"])
    assert "](" not in description and f"<{url}" not in description


def test_a_label_cannot_pretend_to_be_another_address() -> None:
    """A label that looks like an address stands beside the real one."""
    (part,) = render(
        NormalizedResponse(title="t", links=(Link(label="github.com/a", url="https://evil.example"),))
    )
    assert "<https://evil.example>" in str(part.payload["embeds"])


def test_plain_is_text_alone() -> None:
    """Where Discord refuses a card, the same is said as text, without cards and buttons and without previews of links."""
    response = NormalizedResponse(
        title="Deploy?", text="to *staging*", actions=(Action(label="Approve", command="approve dp-1"),)
    )
    (part,) = render(response, plain=True)
    assert part.payload["content"] == "Deploy?\nto \\*staging\\*\nApprove · Reply: `approve dp-1`"
    assert (part.payload["embeds"], part.payload["components"], part.payload["flags"]) == ([], [], 4)


def test_names_are_data() -> None:
    """A display name loses what hides or reorders, and is at most 80 characters."""
    assert name("\u202eada\x00\n\u200b lovelace ") == "ada lovelace"
    assert len(name("x" * 500)) == 80
