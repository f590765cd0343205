"""The order a Task Agent works from: its form on the wire, and the schema that is published of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from codespar.domain.messages import Attachment
from codespar.domain.tasks import (
    MICROS,
    Environment,
    Limits,
    TaskContext,
    TaskKind,
    TaskSpec,
    TaskStatus,
    TestRun,
    Thread,
    task_spec_schema,
)

WITHIN_REASON = settings(max_examples=50, deadline=None)

ROOT = Path(__file__).resolve().parents[2]

SPEC = TaskSpec(
    id="task-abc123",
    project="shop",
    repository="/srv/git/shop.git",
    base_branch="main",
    base_commit="0123456789abcdef" * 2 + "01234567",
    instruction="Add a rate limiter:\n\n- 100/min",
    kind=TaskKind.FIX,
    requester="Ada Lovelace",
    context=TaskContext(
        repository_map="src/app.py",
        earlier_steps=("made a table",),
        failing_log="E assert",
        attachments=(Attachment(name="a.png", media_type="image/png", size=3, sha256="0" * 64),),
        earlier_patch=True,
    ),
    blocked_paths=("*.pem",),
    blocked_commands=("terraform apply",),
    environment=Environment(image="codespar-task:1", variables={"CI": "1", "snake_case": "kept"}),
    test_command="make test",
    limits=Limits(cost_micros=2 * MICROS, cpus=1.5),
    model="claude-sonnet-5-5",
)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return task_spec_schema()


def test_a_task_spec_is_the_same_after_a_trip_over_the_wire() -> None:
    assert TaskSpec.model_validate(json.loads(json.dumps(SPEC.wire()))) == SPEC
    assert TaskSpec.model_validate_json(json.dumps(SPEC.wire())) == SPEC


def test_on_the_wire_its_keys_are_camel_case_and_the_projects_own_words_are_left_alone() -> None:
    wire = SPEC.wire()
    assert {"baseBranch", "baseCommit", "allowedTools", "blockedPaths", "testCommand"} <= set(wire)
    assert wire["limits"]["costMicros"] == 2 * MICROS
    assert wire["context"]["attachments"][0]["mediaType"] == "image/png"
    assert wire["environment"]["variables"] == {"CI": "1", "snake_case": "kept"}
    assert not [key for key in [*wire, *wire["limits"], *wire["context"]] if "_" in key]


@pytest.mark.parametrize("inside", ["", "limits", "context", "environment"])
def test_an_unknown_key_is_refused_wherever_it_stands(inside: str, schema: dict[str, Any]) -> None:
    wire = SPEC.wire()
    (wire[inside] if inside else wire)["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        TaskSpec.model_validate(wire)
    assert not Draft202012Validator(schema).is_valid(wire)


@pytest.mark.parametrize(
    "key",
    [
        "id",
        "project",
        "repository",
        "baseBranch",
        "baseCommit",
        "instruction",
        "requester",
        "environment",
        "model",
    ],
)
def test_what_a_task_cannot_do_without_must_be_given(key: str, schema: dict[str, Any]) -> None:
    wire = SPEC.wire()
    del wire[key]
    with pytest.raises(ValidationError):
        TaskSpec.model_validate(wire)
    assert not Draft202012Validator(schema).is_valid(wire)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("costMicros", -1),
        ("turns", 0),
        ("wallSeconds", 0),
        ("stallSeconds", 0),
        ("memoryBytes", 1024),
        ("cpus", 0),
        ("tmpBytes", 1024),
        ("pids", 1),
        ("outputBytes", 0),
        ("outputFiles", 0),
    ],
)
def test_a_limit_no_task_could_live_with_is_refused(limit: str, value: int, schema: dict[str, Any]) -> None:
    wire = SPEC.wire()
    wire["limits"][limit] = value
    with pytest.raises(ValidationError):
        TaskSpec.model_validate(wire)
    assert not Draft202012Validator(schema).is_valid(wire)


def test_a_later_version_of_the_form_is_refused(schema: dict[str, Any]) -> None:
    wire = SPEC.wire() | {"version": 2}
    with pytest.raises(ValidationError):
        TaskSpec.model_validate(wire)
    assert not Draft202012Validator(schema).is_valid(wire)


def test_the_schema_is_a_valid_one_and_accepts_full_and_least_examples(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(SPEC.wire())
    least = {key: value for key, value in SPEC.wire().items() if key in schema["required"]}
    validator.validate(least)
    assert TaskSpec.model_validate(least).limits == Limits()


def test_the_published_schema_is_the_one_in_code(schema: dict[str, Any]) -> None:
    published = json.loads((ROOT / "docs" / "task-spec.schema.json").read_text())
    assert published.pop("$schema") == Draft202012Validator.META_SCHEMA["$id"]
    assert published == schema


def test_the_limits_are_those_of_the_product() -> None:
    limits = Limits()
    assert (limits.cost_micros, limits.turns) == (5 * MICROS, 100)
    assert (limits.wall_seconds, limits.stall_seconds) == (3600, 300)
    assert (limits.memory_bytes, limits.cpus) == (2 * 1024**3, 2)
    assert limits.tmp_bytes == 512 * 1024**2


def test_a_task_agent_gets_no_tool_that_reaches_the_network() -> None:
    assert not {"WebFetch", "WebSearch", "Task"} & set(SPEC.allowed_tools)


def test_the_three_ends_of_a_task_are_final_and_nothing_else_is() -> None:
    assert {status.value for status in TaskStatus if status.final} == {"completed", "failed", "cancelled"}


def test_a_test_run_passed_only_with_exit_code_zero() -> None:
    assert TestRun(command="make test", exit_code=0, seconds=1).passed
    assert not TestRun(command="make test", exit_code=137, seconds=1).passed


def test_threads_of_one_conversation_are_told_apart() -> None:
    whole = Thread(channel="slack", conversation="C1")
    assert whole.key == "slack/C1/"
    assert whole.evolve(thread_id="17").key == "slack/C1/17"
    assert whole.evolve(person="ada").key == whole.key


def test_a_value_changes_only_by_making_the_next_one_which_is_checked_again() -> None:
    with pytest.raises(ValidationError):
        SPEC.id = "task-other"  # pyright: ignore[reportAttributeAccessIssue]
    assert SPEC.evolve(project="other").project == "other" and SPEC.project == "shop"
    with pytest.raises(ValidationError):
        Limits().evolve(turns=0)
    with pytest.raises(ValidationError):
        SPEC.evolve(surprise=1)


WORDS = st.text(max_size=20)
SPECS = st.fixed_dictionaries(
    {
        "instruction": st.text(),
        "repository": WORDS,
        "kind": st.sampled_from(TaskKind),
        "test_command": st.none() | WORDS,
        "blocked_paths": st.lists(WORDS, max_size=3).map(tuple),
        "environment": st.dictionaries(WORDS, WORDS, max_size=3).map(
            lambda variables: Environment(image="i", variables=variables)
        ),
        "limits": st.tuples(st.integers(0, 10**12), st.floats(0.001, 1e9)).map(
            lambda pair: Limits(cost_micros=pair[0], wall_seconds=pair[1])
        ),
    }
).map(lambda fields: SPEC.evolve(**fields))
VALIDATOR = Draft202012Validator(task_spec_schema())


@WITHIN_REASON
@given(spec=SPECS)
def test_every_task_spec_survives_the_wire_and_fits_the_schema(spec: TaskSpec) -> None:
    wire = json.loads(json.dumps(spec.wire()))
    assert TaskSpec.model_validate(wire) == spec
    assert VALIDATOR.is_valid(wire)
