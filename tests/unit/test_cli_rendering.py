"""What the terminal channel prints: the plain form exactly, and that no text of others can act on a terminal."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from io import StringIO

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from rich.console import Console

from codespar.agents import cards
from codespar.channels.cli import clean, duration, money, one_line, progress_line, render
from codespar.cli.demoview import View, slots
from codespar.domain.messages import (
    Attachment,
    Block,
    FieldLine,
    Link,
    NormalizedResponse,
    Progress,
    Tone,
)
from codespar.domain.tasks import Task, TaskKind, TaskResult, TaskStatus, TestRun, Thread

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
TASK = Task(
    id="task-7k2m9q",
    project="shop",
    ticket=1,
    kind=TaskKind.INSTRUCT,
    instruction="add a health endpoint",
    requester="Ada",
    thread=Thread(channel="cli", conversation="shop", thread_id="ada", person="ada"),
    status=TaskStatus.RUNNING,
    created_at=NOON,
)
# A slow machine is no defect of what is tested.
calm = bounds(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ESCAPES = (
    "\x1b[31m",
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\",
    "\x1bP$q\x1b\\",
    "\x1bc",
    "\x9b5A",
    "\x1b(0",
    "\x1b",
    "\x9d52;c;aGk=\x9c",
)
HOSTILE = st.lists(
    st.one_of(st.text(max_size=20), st.sampled_from(ESCAPES), st.characters(categories=["Cc", "Cf"])),
    max_size=12,
).map("".join)
HARMLESS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], include_characters="\n"), max_size=60)


def plain(response: NormalizedResponse) -> str:
    return str(render(response, plain=True))


def card(response: NormalizedResponse, width: int = 60) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(render(response, plain=False, width=width))
    return capture.get()


# cleaning


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;a new title\x07text", "text"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;c2VjcmV0\x07copied", "copied"),
        ("\x9b31mred", "red"),
        ("\x9d0;title\x9ctext", "text"),
        ("\x1bPq#0\x1b\\image", "image"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("ends with \x1b", "ends with "),
        ("ends with \x1b[", "ends with "),
        ("open string \x1b]0;never closed\nnext line", "open string \nnext line"),
    ],
)
def test_escape_sequences_are_removed_whole(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


@pytest.mark.parametrize(
    "character",
    [
        "\x00", "\x07", "\x08", "\x0b", "\x0c", "\r", "\x7f", "\x85",
        "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069",
        "\u200b", "\u200e", "\u200f", "\u2028", "\u2029", "\ufeff", "\u00ad", "\U000e0041",
    ],
)  # fmt: skip
def test_control_and_direction_characters_are_removed(character: str) -> None:
    assert clean(f"a{character}b") == "ab"


def test_line_ends_stay_tabs_become_spaces_and_emoji_stay_whole() -> None:
    assert clean("a\r\nb\n\tc") == "a\nb\n    c"
    assert clean("👩\u200d💻 ✅ größe 日本") == "👩\u200d💻 ✅ größe 日本"


@calm
@given(HOSTILE)
def test_nothing_that_a_terminal_acts_on_survives_cleaning(text: str) -> None:
    for char in clean(text):
        assert char in "\n\u200c\u200d" or unicodedata.category(char) not in (
            "Cc",
            "Cf",
            "Cs",
            "Zl",
            "Zp",
        )


@calm
@given(HOSTILE)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@calm
@given(HARMLESS)
def test_harmless_text_is_not_changed(text: str) -> None:
    assert clean(text) == text


@calm
@given(HOSTILE)
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)
    assert one_line(text) == one_line(text).strip()


@calm
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_part_of_a_response_brings_an_escape_to_the_output(
    title: str, text: str, name: str, value: str
) -> None:
    response = NormalizedResponse(
        title=title,
        text=text,
        fields=(FieldLine(name=name, value=value),),
        blocks=(Block(title=title, text=value, language="diff"), Block(text=text)),
        links=(Link(label=name, url=value),),
        attachments=(Attachment(name=name, media_type="x", size=1, sha256="0"),),
        progress=Progress(phase=value),
    )
    for output in (plain(response), card(response), progress_line(response)):
        assert not set(output) & set("\x1b\x9b\x9d\x90\x07\x08\r\u202e\u2066\u2028")


# the cards, as plain text


def test_a_queued_task_in_plain_text() -> None:
    assert plain(cards.queued(TASK, 2, 3, 3)) == (
        "⏳ Task Queued (position 2)\n"
        "─────────────────\n"
        'Task: "add a health endpoint"\n'
        "Active tasks: 3/3\n"
        "Estimated start: when next task completes\n"
        "\n"
        "You'll be notified when this task starts.\n"
        "Reply: `cancel task-7k2m9q`"
    )


def test_a_started_task_in_plain_text() -> None:
    assert plain(cards.started(TASK, 1, 3)) == (
        "🔧 Task Agent Started\n"
        "─────────────────\n"
        'Task: "add a health endpoint"\n'
        "Agent: task-7k2m9q\n"
        "Active tasks: 1/3\n"
        "Reply: `cancel task-7k2m9q`"
    )


def test_a_completed_task_in_plain_text() -> None:
    result = TaskResult(
        status=TaskStatus.COMPLETED,
        pr_number=7,
        pr_title="Add a health endpoint",
        files_changed=2,
        additions=31,
        deletions=4,
        tests=TestRun(command="make test", exit_code=0, seconds=3.21),
        cost_micros=184_000,
        tokens=52_100,
        turns=9,
    )
    assert plain(cards.completed(TASK, result)) == (
        "✅ Task Completed (task-7k2m9q)\n"
        "─────────────────\n"
        'PR #7 opened: "Add a health endpoint"\n'
        "Files changed: 2 | Lines: +31 / -4\n"
        "Tests: passed in a second clean container (`make test`, 3.2 s)\n"
        "Cost: $0.18 (52100 tokens, 9 turns)\n"
        "Asked by: Ada\n"
        "Reply: `diff PR #7` · `merge PR #7`"
    )


def test_a_title_alone_has_no_line_under_it() -> None:
    assert plain(NormalizedResponse(title="Task dequeued")) == "Task dequeued"


def test_a_value_of_several_lines_cannot_pose_as_a_fact_of_the_card() -> None:
    response = NormalizedResponse(
        title="Done", fields=(FieldLine(name="Task", value="harmless\nApproved by: Ada"),)
    )
    assert plain(response).splitlines()[2:] == ["Task: harmless", "  Approved by: Ada"]


def test_the_card_shows_the_same_words_as_the_plain_form() -> None:
    response = cards.started(TASK, 1, 3)
    shown = card(response)
    assert all(line in shown for line in plain(response).splitlines())
    assert shown.startswith("╭") and max(map(len, shown.splitlines())) <= 60


def test_markup_in_a_card_has_no_effect() -> None:
    response = NormalizedResponse(title="[red]not red[/red]", text="[link=http://evil]x[/link]")
    assert "[red]not red[/red]" in card(response)
    assert "[link=http://evil]x[/link]" in card(response)


# one line for progress


def test_progress_on_one_line() -> None:
    response = NormalizedResponse(
        title="🔧 task-7k2m9q: running\nthe tests",
        tone=Tone.PROGRESS,
        progress=Progress(phase="running the tests", elapsed_seconds=187.9, turns=12, cost_micros=421_000),
    )
    assert progress_line(response) == "🔧 task-7k2m9q: running the tests · 3:07 min · 12 turns · $0.42"


def test_one_turn_is_not_told_as_several() -> None:
    task = TASK.evolve(turns=1, tokens=1, cost_micros=0)
    assert cards.used(task) == "1 turn, 1 token, $0.00"
    assert cards.used(TASK.evolve(turns=0, tokens=2, cost_micros=0)) == "0 turns, 2 tokens, $0.00"


def test_without_progress_the_line_is_the_title() -> None:
    assert progress_line(NormalizedResponse(title="Started")) == "Started"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1:00 min"), (3599, "59:59 min"), (3720, "1:02 h")],
)
def test_time_spans_as_people_read_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("micros", "shown"),
    [(0, "$0.00"), (1_234, "$0.0012"), (10_000, "$0.01"), (5_000_000, "$5.00")],
)
def test_money_as_people_read_it(micros: int, shown: str) -> None:
    assert money(micros) == shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_task_of_the_demo_takes_one_line_however_narrow_the_terminal_and_what_is_cut_says_so(
    width: int,
) -> None:
    instruction = (
        "add GET /api/products with filtering by maximum price and sorting by name, and tests for both"
    )
    running = {
        "status": "running",
        "id": "task-mrx0fd",
        "phase": "running python3 -m unittest discover -s tests",
    }
    task = running | {"costMicros": 20_000, "instruction": instruction}
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    console.print(slots([task]))
    shown = console.file.getvalue() if isinstance(console.file, StringIO) else ""
    assert len(shown.splitlines()) == 1 and "task-mrx0fd" in shown and "$0.02" in shown
    assert "…" in shown


def test_the_demo_lists_its_pull_requests_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    done = {
        "state": "completed",
        "tests": None,
        "costUsd": 0.02,
        "additions": 1,
        "deletions": 0,
        "branch": "b",
    }
    tasks = [
        done | {"prNumber": number, "prTitle": f"t{number}", "filesChanged": number} for number in (2, 1)
    ]
    View(live=False, quiet=False).summary(
        [*tasks, {"prNumber": None, "state": "failed", "id": "task-a"}], "/r"
    )
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" · ")[:2] for line in lines[:2]] == [
        ["  #1 t1", "1 file, +1 / -0"],
        ["  #2 t2", "2 files, +1 / -0"],
    ]
    assert lines[2] == "  ❌ task-a failed"
