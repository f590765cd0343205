"""The agents' life: exactly the steps of the one table, and everything else refused loudly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.agents import (
    TRANSITIONS,
    AgentKind,
    AgentState,
    Outcome,
    TransitionRefused,
    check_transition,
)
from codespar.domain.base import CodesparError

WITHIN_REASON = settings(max_examples=50, deadline=None)

STEPS = {
    ("INITIALIZING", "IDLE"),
    ("IDLE", "ACTIVE"),
    ("ACTIVE", "IDLE"),
    ("ACTIVE", "WAITING_APPROVAL"),
    ("WAITING_APPROVAL", "ACTIVE"),
    # a restart, from wherever it was
    ("INITIALIZING", "INITIALIZING"),
    ("IDLE", "INITIALIZING"),
    ("ACTIVE", "INITIALIZING"),
    ("WAITING_APPROVAL", "INITIALIZING"),
    # the end; who waits for an approval cleans up and reports (ACTIVE) first
    ("INITIALIZING", "TERMINATED"),
    ("IDLE", "TERMINATED"),
    ("ACTIVE", "TERMINATED"),
}


@pytest.mark.parametrize("current", AgentState)
def test_exactly_the_steps_of_the_table_are_allowed(current: AgentState) -> None:
    for wanted in AgentState:
        if (current, wanted) in STEPS:
            check_transition("task-abc123", current, wanted)
        else:
            with pytest.raises(TransitionRefused):
                check_transition("task-abc123", current, wanted)


@pytest.mark.parametrize("wanted", AgentState)
def test_who_has_ended_stays_ended_even_over_a_restart(wanted: AgentState) -> None:
    with pytest.raises(TransitionRefused, match="it has ended"):
        check_transition("task-abc123", AgentState.TERMINATED, wanted)


def test_a_refusal_names_the_agent_both_states_and_what_is_possible() -> None:
    with pytest.raises(CodesparError) as caught:
        check_transition("task-abc123", AgentState.IDLE, AgentState.WAITING_APPROVAL)
    told = str(caught.value)
    for word in ("task-abc123", "IDLE", "WAITING_APPROVAL", "ACTIVE", "INITIALIZING", "TERMINATED"):
        assert word in told


def test_every_living_agent_can_be_restarted() -> None:
    living = set(AgentState) - {AgentState.TERMINATED}
    assert {state for state in AgentState if AgentState.INITIALIZING in TRANSITIONS[state]} == living


def test_the_project_agent_and_the_coordinator_are_the_persistent_ones() -> None:
    assert {kind.value for kind in AgentKind if kind.persistent} == {"project", "coordinator"}
    assert len(AgentKind) == 8


def test_an_ended_agent_has_one_of_five_outcomes() -> None:
    assert [outcome.value for outcome in Outcome] == [
        "succeeded",
        "failed",
        "cancelled",
        "rejected",
        "expired",
    ]


@WITHIN_REASON
@given(wishes=st.lists(st.sampled_from(AgentState), max_size=30))
def test_whatever_is_asked_an_agent_only_walks_the_table_and_ends_once(wishes: list[AgentState]) -> None:
    state, ended = AgentState.INITIALIZING, 0
    for wanted in wishes:
        try:
            check_transition("task-abc123", state, wanted)
        except TransitionRefused:
            assert (state, wanted) not in STEPS
            continue
        assert (state, wanted) in STEPS
        state = wanted
        ended += state is AgentState.TERMINATED
    assert ended <= 1
