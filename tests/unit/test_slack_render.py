"""Whatever a response holds, Slack takes the messages that it becomes, nothing of it is lost, and nobody is called by it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codespar.channels.base import Part
from codespar.channels.slack.normalize import Question
from codespar.channels.slack.render import form, render
from codespar.domain.messages import (
    Action,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
    Tone,
)
from support.platforms.slack import check_message
from support.platforms.slack_rules import check_view, said
from support.responses import attached

NASTY = [
    "",
    " ",
    "\x00\x07\x1b[31m",
    "<!channel> <!here> <@U0ADA> <#C0ROOM> <!subteam^S1>",
    "@everyone @channel @here",
    "```\nrm -rf /\n``` `x` *b* _i_ ~s~",
    "[click](https://evil.example) <https://evil.example|good.example>",
    "<b>&amp;&lt;</b>",
    "שלום عليكم \u202eevil\u202c",
    "\u200b\u200d\ufeff",
    "👩‍👩‍👧‍👦🏳️‍🌈" * 40,
    "x" * 3001,
    "é" * 5000,
    "line\r\nline\rline\n" * 300,
    '"\\' * 1500,
    "word " * 2_500,
    "😀" * 12_100,
]
HUGE = ["word " * 21_000, "😀" * 100_000, "<!here>\n" * 12_500]
texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=200), st.text("ab \n<>&`*", max_size=4000))
short = st.one_of(st.sampled_from(NASTY[:9]), st.text(max_size=100))
responses = st.builds(
    NormalizedResponse,
    title=texts,
    tone=st.sampled_from(Tone),
    text=texts,
    fields=st.lists(st.builds(FieldLine, name=short, value=texts), max_size=6).map(tuple),
    blocks=st.lists(
        st.builds(Block, language=st.sampled_from(["", "diff", "python"]), text=texts, title=short),
        max_size=3,
    ).map(tuple),
    links=st.lists(
        st.builds(Link, label=texts, url=st.one_of(short, st.just("https://example.org/a?b=c&d"))), max_size=3
    ).map(tuple),
    progress=st.none() | st.builds(Progress, phase=short),
    actions=st.lists(
        st.builds(
            Action,
            label=st.one_of(short, st.just("Approve")),
            command=texts,
            style=st.sampled_from(["default", "primary", "danger", "odd"]),
            asks=st.one_of(st.just(""), texts),
        ),
        max_size=4,
    ).map(tuple),
    attachments=st.lists(
        st.builds(attached, name=short, media_type=st.just("x/y"), size=st.just(7), sha256=st.just("0")),
        max_size=2,
    ).map(tuple),
    agent=st.none() | short,
)
thorough = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def shown(parts: tuple[Part, ...]) -> str:
    """Everything that people can read: messages, buttons and what is behind them, files."""
    found = [said(part.payload) for part in parts]
    for button in (button for part in parts for button in buttons(part)):
        behind = json.loads(button["value"])
        found += [button["text"]["text"], behind["command"], behind.get("asks", "")]
    found += [file.content.decode() for part in parts for file in part.files]
    return "\n".join(found)


def buttons(part: Part) -> list[dict[str, Any]]:
    blocks: Any = part.payload.get("blocks") or []
    return [button for block in blocks if block["type"] == "actions" for button in block["elements"]]


def visible(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char)[0] not in "CZ")


def said_by(response: NormalizedResponse) -> list[str]:
    wanted = [response.title, response.text, response.agent or ""]
    wanted += [text for line in response.fields for text in (line.name, line.value)]
    wanted += [text for block in response.blocks for text in (block.title, block.text)]
    wanted += [text for link in response.links for text in (link.label, link.url)]
    wanted += [text for action in response.actions for text in (action.label, action.command, action.asks)]
    wanted += [kept.name for kept in response.attachments]
    wanted += [response.progress.phase] if response.progress else []
    return wanted


@given(responses, st.booleans())
@thorough
def test_slack_takes_every_part_of_any_response(response: NormalizedResponse, plain: bool) -> None:
    """No response makes a message that Slack would refuse, and none is empty."""
    parts = render(response, plain=plain)
    assert parts
    for part in parts:
        assert check_message(part.payload) == []
        json.dumps(part.payload, ensure_ascii=False).encode()


@given(responses, st.booleans())
@thorough
def test_nothing_of_a_response_is_lost(response: NormalizedResponse, plain: bool) -> None:
    """Each visible character of each text is in a message, behind a button or in a file, in its order."""
    everything = visible(shown(render(response, plain=plain)))
    for text in said_by(response):
        assert visible(text) in everything


@given(responses, st.booleans())
@thorough
def test_the_same_response_makes_the_same_messages(response: NormalizedResponse, plain: bool) -> None:
    """A message that is tried again is the same message."""
    assert render(response, plain=plain) == render(response, plain=plain)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("text", NASTY + HUGE)
def test_no_text_calls_or_links_anybody(text: str, plain: bool) -> None:
    """A text with marks of Slack's in every place makes no mention, no link and no mrkdwn."""
    response = NormalizedResponse(
        title=text[:300],
        text=text,
        agent=text[:300],
        fields=(FieldLine(name=text[:300], value=text),),
        blocks=(Block(text=text, title=text[:300]),),
        links=(Link(label=text[:300], url=text[:300]),),
        actions=(Action(label=text[:50] or "x", command=text or "x"),),
    )
    for part in render(response, plain=plain):
        kinds = set(re.findall(r'"type": "(\w+)"', json.dumps(part.payload)))
        assert kinds <= {
            "header", "plain_text", "rich_text", "rich_text_section", "rich_text_preformatted", "text", "context",
            "actions", "button",
        }  # fmt: skip
        assert "<" not in str(part.payload["text"])


def test_a_task_card_reads_as_it_should() -> None:
    """Title, fields, progress and who speaks, each on a line, and a button that stops it."""
    (part,) = render(
        NormalizedResponse(
            title="🔧 Task Agent Started",
            tone=Tone.PROGRESS,
            fields=(
                FieldLine(name="Task", value='"add <retries> & back-off"'),
                FieldLine(name="Agent", value="task-abc123"),
                FieldLine(name="Active tasks", value="1/3"),
            ),
            progress=Progress(phase="testing", elapsed_seconds=61.4, turns=7, cost_micros=120_000),
            actions=(Action(label="Stop", command="cancel task-abc123", style="danger"),),
            agent="task-abc123",
        )
    )
    assert said(part.payload).split("\n") == [
        "🔧 Task Agent Started",
        'Task: "add <retries> & back-off"',
        "Agent: task-abc123",
        "Active tasks: 1/3",
        "task-abc123 · testing · 61 s · 7 turns · $0.12",
    ]
    (button,) = buttons(part)
    assert (button["text"]["text"], button["style"]) == ("Stop", "danger")
    assert json.loads(button["value"]) == {"command": "cancel task-abc123"}


def test_a_tone_marks_a_title_that_has_no_marker() -> None:
    """What failed says so at a glance; a title with a marker of its own keeps that."""
    assert render(NormalizedResponse(title="Deploy", tone=Tone.FAILURE))[0].text == "❌ Deploy"
    assert render(NormalizedResponse(title="🚀 Deploy", tone=Tone.SUCCESS))[0].text == "🚀 Deploy"


def test_a_long_diff_becomes_a_file_with_its_beginning_shown() -> None:
    """50,000 characters of diff: the first lines in the message, all of it in change-1.diff."""
    diff = "\n".join(f"+line {number} <b>&```" for number in range(2500))
    (part,) = render(
        NormalizedResponse(title="Diff", blocks=(Block(language="diff", text=diff, title="app.py"),))
    )
    (file,) = part.files
    assert (file.name, file.content.decode()) == ("change-1.diff", diff)
    lines = said(part.payload).split("\n")
    assert lines[:3] == ["Diff", "app.py", "+line 0 <b>&```"]
    assert lines[-1] == f"2500 lines, {len(diff)} characters: all of it is in change-1.diff"


def test_more_actions_than_fit_are_told_as_text() -> None:
    """25 buttons; the others, and what no button can hold, can be typed."""
    actions = tuple(Action(label=f"Vote {number}", command=f"approve dp-{number}") for number in range(30))
    long = Action(label="Do", command="instruct " + "x" * 2000)
    parts = render(NormalizedResponse(title="Votes", actions=(*actions, long)))
    assert sum(len(buttons(part)) for part in parts) == 25
    text = "\n".join(said(part.payload) for part in parts)
    assert "Vote 29 · Reply: approve dp-29" in text
    assert f"Do · Reply: {long.command}" in text


def test_a_link_is_one_only_when_it_leads_to_the_web() -> None:
    """http and https are links; anything else is shown as text."""
    links = (Link(label="PR #51", url="https://forge.example/51"), Link(label="x", url="javascript:alert(1)"))
    (part,) = render(NormalizedResponse(title="Links", links=links))
    blocks: Any = part.payload["blocks"]
    elements = [element for section in blocks[1]["elements"] for element in section["elements"]]
    assert elements == [
        {"type": "link", "url": "https://forge.example/51", "text": "PR #51"},
        {"type": "text", "text": "x: javascript:alert(1)"},
    ]


@given(texts.map(lambda text: text[:950]), texts)
@thorough
def test_slack_takes_any_form(asks: str, label: str) -> None:
    """Whatever is asked, the form opens and shows all of it."""
    view = form(Question(trigger="1", asks=asks, label=label, metadata="{}"))
    assert check_view(view) == []
    asked = [block.get("label", block.get("text"))["text"] for block in view["blocks"]]
    assert visible(asks) in visible(asked[0])
