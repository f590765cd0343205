"""The agents' life: one transition table for all of them, and what a refused transition says."""

from __future__ import annotations

from enum import StrEnum

from codespar.domain.base import CodesparError


class AgentKind(StrEnum):
    PROJECT = "project"
    TASK = "task"
    REVIEW = "review"
    DEPLOY = "deploy"
    INCIDENT = "incident"
    PLANNING = "planning"
    LENS = "lens"
    COORDINATOR = "coordinator"

    @property
    def persistent(self) -> bool:
        return self in (AgentKind.PROJECT, AgentKind.COORDINATOR)


class AgentState(StrEnum):
    INITIALIZING = "INITIALIZING"
    IDLE = "IDLE"
    ACTIVE = "ACTIVE"
    WAITING_APPROVAL = "WAITING_APPROVAL"
    TERMINATED = "TERMINATED"


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


_S = AgentState
TRANSITIONS: dict[AgentState, frozenset[AgentState]] = {
    _S.INITIALIZING: frozenset({_S.IDLE, _S.INITIALIZING, _S.TERMINATED}),
    _S.IDLE: frozenset({_S.ACTIVE, _S.INITIALIZING, _S.TERMINATED}),
    _S.ACTIVE: frozenset({_S.IDLE, _S.WAITING_APPROVAL, _S.INITIALIZING, _S.TERMINATED}),
    _S.WAITING_APPROVAL: frozenset({_S.ACTIVE, _S.INITIALIZING}),
    _S.TERMINATED: frozenset(),
}


class TransitionRefused(CodesparError):
    """An agent was asked to take a step its state machine does not have."""

    def __init__(self, agent: str, current: AgentState, wanted: AgentState) -> None:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing: it has ended"
        super().__init__(
            f"agent {agent} is {current} and cannot become {wanted}; from there it may become {allowed}"
        )


def check_transition(agent: str, current: AgentState, wanted: AgentState) -> None:
    """Raise `TransitionRefused` unless the table allows the step."""
    if wanted not in TRANSITIONS[current]:
        raise TransitionRefused(agent, current, wanted)
