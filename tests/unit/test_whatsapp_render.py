"""How responses look on WhatsApp: everything is shown, within the platform's limits, and nobody's text becomes formatting.

What was escaped is read back by taking U+2060 out. WhatsApp opens bold, italic and struck-out text only at a line's start, behind a space or
behind another marker, so these tests look for such an opening.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pywa.types import Button, Section, SectionList, SectionRow

from codespar.channels.base import Part
from codespar.channels.whatsapp.normalize import heard
from codespar.channels.whatsapp.outgoing import envelope, short_key, template
from codespar.channels.whatsapp.render import JOINER, clean, escape, render, unescape
from codespar.domain.messages import (
    Action,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
    Tone,
)
from support.platforms.whatsapp import check_message, reads_as
from support.responses import attached

NASTY = [
    "",
    " ",
    "\n\n",
    "\0\ud800\u202e\u2060",
    "*bold* _it_ ~st~ `co` ```fence```",
    "@everyone @15550001001 <!channel> <@U1>",
    "[text](https://evil.example) <b>x</b> &amp;",
    "> quote\n- item\n1. one\n* star",
    "👩‍👩‍👧‍👦🇵🇹🏴󠁧󠁢󠁳󠁣󠁴󠁿 שלום עליכם \u200d\u200b",
    "``````````",
    "*" * 5000,
    "x" * 9000,
    "a b " * 3000,
    "\n".join(["line"] * 3000),
]
texts = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=60), st.text(alphabet="*_~`> -1.@a\n", max_size=60)
)
responses = st.builds(
    NormalizedResponse,
    title=texts,
    tone=st.sampled_from(Tone),
    text=texts,
    fields=st.lists(st.builds(FieldLine, name=texts, value=texts), max_size=3).map(tuple),
    blocks=st.lists(
        st.builds(Block, language=st.sampled_from(["", "diff", "python"]), text=texts, title=texts),
        max_size=2,
    ).map(tuple),
    links=st.lists(
        st.builds(Link, label=texts, url=st.one_of(texts, st.just("https://example.com/a_b?c=*d*"))),
        max_size=2,
    ).map(tuple),
    progress=st.none() | st.builds(Progress, phase=texts, turns=st.integers(0, 9)),
    actions=st.lists(
        st.builds(
            Action,
            label=texts,
            command=st.one_of(texts, st.text("abc ", max_size=30), st.just("x" * 230), st.just("é" * 101)),
        ),
        max_size=13,
    ).map(tuple),
    attachments=st.lists(
        st.builds(attached, name=texts, media_type=st.just("x/y"), size=st.just(3), sha256=st.just("0")),
        max_size=1,
    ).map(tuple),
    agent=st.none() | texts,
)


def wire(part: Part) -> dict[str, Any]:
    """What is posted for a part."""
    message: Any = part.payload["message"]
    if part.files:
        message = {**message, "document": {**message["document"], "id": "1"}}
    return envelope("US.1001", message, "m:key")


def marks(text: str) -> str:
    """What can be seen of a text, without spaces."""
    seen = (
        char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Mn", "Zs", "Zl", "Zp")
    )
    return "".join(char for char in seen if not char.isspace())


def all_of(parts: tuple[Part, ...]) -> str:
    """What can be seen of everything that is posted, one after another, files included."""
    pieces: list[str] = []
    for part in parts:
        match wire(part):
            case {"text": {"body": body}}:
                pieces.append(body)
            case {"document": {"caption": caption}}:
                pieces.append(caption)
            case {"interactive": used}:
                pieces += [used["body"]["text"], used.get("footer", {}).get("text", "")]
                for button in used["action"].get("buttons", ()):
                    pieces += [button["reply"]["title"], button["reply"]["id"]]
                for section in used["action"].get("sections", ()):
                    for row in section["rows"]:
                        pieces += [row.get("description", row["title"]), row["id"]]
        pieces += [file.content.decode() for file in part.files]
    return marks(unescape("".join(pieces)).replace("```", ""))


@settings(max_examples=50, deadline=None)
@given(response=responses, plain=st.booleans())
def test_whatever_is_in_a_response_the_platform_takes_every_part_of_it(
    response: NormalizedResponse, plain: bool
) -> None:
    parts = render(response, plain=plain)
    assert parts
    for part in parts:
        assert check_message(wire(part)) == []
        assert part.text
        if plain:
            assert part.payload["message"]["type"] == "text" and not part.files  # type: ignore[index]
    assert (
        check_message(
            envelope("15550001001", template("news", "en_US", str(parts[0].payload["brief"])), "t:k")
        )
        == []
    )


@settings(max_examples=50, deadline=None)
@given(response=responses, plain=st.booleans())
def test_no_visible_character_of_any_field_is_lost(response: NormalizedResponse, plain: bool) -> None:
    shown = all_of(render(response, plain=plain))
    wanted = [response.title, response.text, response.agent or ""]
    wanted += [text for line in response.fields for text in (line.name, line.value)]
    wanted += [text for block in response.blocks for text in (block.title, block.text)]
    wanted += [text for link in response.links for text in (link.label, link.url)]
    wanted += [text for action in response.actions for text in (action.label, action.command)]
    wanted += [file.name for file in response.attachments]
    wanted += [response.progress.phase] if response.progress else []
    for (
        text
    ) in wanted:  # a fence of ours has backticks too; that theirs are kept, the escaping's own test shows
        assert marks(text).replace("`", "") in shown.replace("`", "")


@given(text=st.one_of(texts, st.text(alphabet="*_~`>-1.a \n", max_size=30)))
def test_an_escaped_text_opens_no_formatting_and_reads_as_it_was(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == clean(text)
    assert not re.search(r"(?:^|[\s>*_~])[*_~](?=\S)", escaped, re.MULTILINE)
    assert "``" not in escaped and not re.search(
        r"(?<!\u2060)`", re.sub(r"(?<=\w)`(?=\w)", "", escaped, flags=re.ASCII)
    )
    assert not re.search(r"^[ \t]*(>|[-*+•] |\d+[.)] )", escaped, re.MULTILINE)
    assert not re.search(r"@\d", escaped)


@given(text=texts)
def test_a_block_cannot_end_its_own_fence(text: str) -> None:
    parts = render(NormalizedResponse(title="T", blocks=(Block(text=text),)))
    for part in parts:
        body = str(wire(part).get("text", wire(part).get("document", {})))
        assert body.count("```") % 2 == 0


def test_a_task_card_is_one_message_with_its_buttons() -> None:
    card = NormalizedResponse(
        title="🔧 Task Agent Started",
        text='Task: "fix the *login*"',
        fields=(FieldLine(name="Agent", value="task-abc123"), FieldLine(name="Active tasks", value="1/3")),
        progress=Progress(phase="Running tests", elapsed_seconds=42, turns=7, tokens=9, cost_micros=120_000),
        actions=(
            Action(label="🛑 Stop", command="cancel task-abc123"),
            Action(label="Status", command="status"),
        ),
        agent="task-abc123",
    )
    (part,) = render(card)
    interactive: Any = wire(part)["interactive"]
    assert reads_as(interactive["body"]["text"]).split("\n") == [
        "🔧 Task Agent Started",
        'Task: "fix the *login*"',
        "Agent: task-abc123",
        "Active tasks: 1/3",
        "Running tests · 42 s · 7 turns · $0.12",
    ]
    assert interactive["footer"] == {"text": "task-abc123"}
    # pywa's own types give the same JSON
    buttons = [Button("🛑 Stop", "cancel task-abc123"), Button("Status", "status")]
    assert interactive["action"] == {"buttons": [button.to_dict() for button in buttons]}


def test_a_question_with_five_answers_is_a_list_and_long_labels_stand_in_the_description() -> None:
    labels = ["Approve", "Reject with a reason that is long", "Show the diff", "Later", "Never"]
    actions = tuple(Action(label=label, command=f"do {place}") for place, label in enumerate(labels))
    (part,) = render(NormalizedResponse(title="Deploy?", actions=actions))
    interactive: Any = wire(part)["interactive"]
    rows = [SectionRow(label, f"do {place}") for place, label in enumerate(labels)]
    rows[1] = SectionRow("Reject with a reason…", "do 1", labels[1])
    expected = SectionList("Choose", [Section("Actions", rows)]).to_dict()
    assert interactive["type"] == "list"
    assert interactive["action"]["sections"][0]["rows"] == list(expected["sections"][0]["rows"])


def test_actions_that_do_not_fit_are_shown_as_what_to_reply() -> None:
    many = tuple(Action(label=f"Go {place}", command=f"go {place}") for place in range(12))
    long = Action(label="Long", command="x" * 300)
    twin = Action(label="Go 1", command="go elsewhere")
    (part,) = render(NormalizedResponse(title="T", actions=(*many, long, twin)))
    interactive: Any = wire(part)["interactive"]
    assert len(interactive["action"]["sections"][0]["rows"]) == 10
    body = interactive["body"]["text"]
    assert (
        "Go 11 · Reply: `go 11`" in body
        and "Reply: `go elsewhere`" in body
        and f"Reply: `{'x' * 300}`" in body
    )


def test_a_long_diff_is_a_document_and_the_buttons_come_last() -> None:
    diff = "+added line\n" * 4200
    response = NormalizedResponse(
        title="✅ Done",
        blocks=(Block(language="diff", text=diff, title="The change"),),
        actions=(Action(label="Merge", command="merge PR #1"),),
    )
    text, document, question = render(response)
    assert "📎 change-1.diff" in text.text
    assert document.files[0].name == "change-1.diff" and document.files[0].content.decode() == diff
    assert document.text.startswith("*The change*\n```\n+added line")
    assert wire(question)["interactive"]["body"]["text"] == "*✅ Done*"
    plain = render(response, plain=True)
    assert len(plain) > 10 and not any(part.files for part in plain)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "https://a b", "ftp://x"])
def test_an_address_that_is_no_web_address_is_shown_as_text(url: str) -> None:
    (part,) = render(NormalizedResponse(title="T", links=(Link(label="here", url=url),)))
    assert f"here: {url}" in unescape(wire(part)["text"]["body"])
    assert wire(part)["text"]["preview_url"] is False


def test_a_web_address_stays_as_it_is() -> None:
    url = "https://example.com/a_b/_c_/d~e?f=1"
    (part,) = render(NormalizedResponse(title="T", links=(Link(label="PR", url=url),)))
    assert f"PR: {url}" in wire(part)["text"]["body"]


def test_the_announcement_is_short_and_only_the_first_part_has_one() -> None:
    parts = render(NormalizedResponse(title="Tests\tfailed", text="one\ntwo    three\n" + "x" * 9000))
    assert len(parts) > 1
    assert (
        str(parts[0].payload["brief"]).startswith("Tests failed one two three x")
        and len(str(parts[0].payload["brief"])) <= 500
    )
    assert {part.payload["brief"] for part in parts[1:]} == {""}


def test_a_key_of_any_length_fits_what_the_platform_gives_back() -> None:
    assert short_key("message:1") == "message:1"
    for key in ("k" * 5000, "ключ", "a b", "\ud800"):
        assert len(f"m:{short_key(key)}") <= 512 and short_key(key).isascii()


@settings(max_examples=60, deadline=None)
@given(
    raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["id", "from", "type", "text", "body", "timestamp", "context", "interactive", "image"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_payload_raises_whatever_it_holds(raw: Any) -> None:
    from datetime import UTC, datetime

    heard(raw, [raw], "1", datetime(2026, 11, 21, tzinfo=UTC))


def test_the_escape_of_people_is_taken_out() -> None:
    assert JOINER not in clean(f"a{JOINER}b")
