"""Approvals: who may vote, when a vote counts, and that a race of votes decides once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from codespar.domain.approvals import (
    DEFAULT_EXPIRY,
    Approval,
    ApprovalKind,
    ApprovalState,
    Verdict,
    VoteResult,
    default_quorum,
    expire,
    first_told,
    new_approval,
    vote,
)
from codespar.domain.autonomy import Risk
from codespar.domain.base import CROCKFORD
from codespar.domain.people import Permission, Person, Role, may
from codespar.domain.tasks import Thread

WITHIN_REASON = settings(max_examples=50, deadline=None)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHOWN = "digest-of-what-was-shown"
YES, NO = Verdict.APPROVE, Verdict.REJECT


def person(id: str, role: Role = Role.MAINTAINER) -> Person:
    return Person(id=id, name=id.title(), role=role)


ADA, BOB, CLEO, REQUESTER = person("ada"), person("bob"), person("cleo"), person("requester")


def pending(
    quorum: int | None = None,
    *,
    kind: ApprovalKind = ApprovalKind.DEPLOY,
    permission: Permission = Permission.DEPLOY_PRODUCTION,
    own: bool | None = None,
    seed: str = "delivery-1",
    attempt: int = 0,
) -> Approval:
    return new_approval(
        kind=kind,
        seed=seed,
        project="shop",
        subject="deploy-abc123",
        action_summary="deploy 1f2e3d4 to production",
        shown_digest=SHOWN,
        requester="requester",
        permission=permission,
        thread=Thread(channel="slack", conversation="C1"),
        now=NOW,
        quorum=quorum,
        self_approval_allowed=own,
        attempt=attempt,
    )


def cast(
    approval: Approval,
    who: Person,
    verdict: Verdict = YES,
    *,
    at: datetime = NOW,
    shown: str = SHOWN,
    channel: str = "slack",
    reason: str = "",
) -> VoteResult:
    return vote(approval, who, verdict, channel, at, shown, reason=reason)


def assert_ignored(result: VoteResult, before: Approval, *words: str) -> None:
    assert not result.accepted and not result.decided
    assert result.approval == before
    assert all(word in result.why for word in words), result.why


@pytest.mark.parametrize(
    ("kind", "environment", "people"),
    [
        *[(kind, None, 1) for kind in ApprovalKind],
        (ApprovalKind.DEPLOY, "staging", 1),
        (ApprovalKind.DEPLOY, "production", 2),
        (ApprovalKind.ROLLBACK, "production", 1),
    ],
)
def test_the_default_quorum(kind: ApprovalKind, environment: str | None, people: int) -> None:
    assert default_quorum(kind, environment) == people


@pytest.mark.parametrize(
    ("risk", "minutes"), [(Risk.LOW, 60), (Risk.MEDIUM, 60), (Risk.HIGH, 60), (Risk.CRITICAL, 15)]
)
def test_the_default_expiry(risk: Risk, minutes: int) -> None:
    assert DEFAULT_EXPIRY[risk] == timedelta(minutes=minutes)


def test_left_out_an_approval_expires_after_an_hour() -> None:
    assert pending().expires_at - NOW == timedelta(hours=1)


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("DEPLOY", "dp"),
        ("ROLLBACK", "rb"),
        ("TASK", "tk"),
        ("MERGE", "mg"),
        ("SUGGESTION", "sg"),
        ("BUDGET", "bg"),
        ("PLAN", "pl"),
        ("CONFIGURATION", "cf"),
    ],
)
def test_a_token_is_the_kinds_prefix_and_six_characters_of_crockfords_base32(kind: str, prefix: str) -> None:
    head, _, tail = pending(kind=ApprovalKind[kind]).token.partition("-")
    assert head == prefix and len(tail) == 6 and set(tail) <= set(CROCKFORD)
    assert len(ApprovalKind) == 8


def test_asking_again_after_a_crash_asks_under_the_same_token() -> None:
    assert pending() == pending()
    assert len({pending().token, pending(attempt=1).token, pending(seed="delivery-2").token}) == 3


def test_one_approval_is_enough_where_one_is_needed() -> None:
    result = cast(pending(1), ADA)
    assert result.accepted and result.decided
    assert result.approval.state is ApprovalState.APPROVED and "Ada" in result.why


def test_two_different_people_are_needed_for_a_quorum_of_two() -> None:
    first = cast(pending(2), ADA)
    assert first.accepted and not first.decided and "1/2" in first.why
    assert first.approval.state is ApprovalState.PENDING
    second = cast(first.approval, BOB, channel="telegram")
    assert second.decided and second.approval.state is ApprovalState.APPROVED
    assert second.approval.approvers == {"ada", "bob"}


@pytest.mark.parametrize("channel", ["slack", "telegram", "cli"])
def test_a_person_counts_once_whatever_the_channel(channel: str) -> None:
    once = cast(pending(2), ADA).approval
    assert_ignored(cast(once, ADA, channel=channel), once, "Ada", "already")


def test_who_asked_does_not_count() -> None:
    asked = pending(1)
    assert_ignored(cast(asked, REQUESTER), asked, "Requester", "somebody else", "deploy_production")


def test_who_asked_counts_where_policy_allows_it() -> None:
    assert cast(pending(1, own=True), REQUESTER).approval.state is ApprovalState.APPROVED


def test_a_budget_question_may_be_answered_by_the_one_whose_task_it_is_and_no_other_kind_may() -> None:
    allowed = {
        kind
        for kind in ApprovalKind
        if cast(pending(kind=kind, permission=Permission.INSTRUCT_AGENT), REQUESTER).accepted
    }
    assert allowed == {ApprovalKind.BUDGET}


def test_who_asked_may_take_it_back_by_rejecting() -> None:
    assert cast(pending(), REQUESTER, NO).approval.state is ApprovalState.REJECTED


def test_one_reject_ends_it_whatever_was_approved_before() -> None:
    once = cast(pending(3), ADA).approval
    ended = cast(once, BOB, NO, reason="too late today")
    assert ended.accepted and ended.decided and ended.why == "rejected by Bob: too late today"
    assert ended.approval.state is ApprovalState.REJECTED
    assert ended.approval.votes[-1].reason == "too late today"
    assert_ignored(cast(ended.approval, CLEO), ended.approval, "rejected already")


def test_an_own_earlier_approval_does_not_stop_a_person_from_rejecting() -> None:
    once = cast(pending(2), ADA).approval
    assert cast(once, ADA, NO).approval.state is ApprovalState.REJECTED


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("permission", [Permission.DEPLOY_PRODUCTION, Permission.APPROVE_PR])
def test_only_who_holds_the_actions_permission_may_vote(
    role: Role, verdict: Verdict, permission: Permission
) -> None:
    asked = pending(1, permission=permission)
    result = cast(asked, person("eve", role), verdict)
    if may(role, permission):
        assert result.accepted
    else:
        assert_ignored(result, asked, "Eve", role.value, permission.value, "owner", asked.token)


def test_a_role_lost_since_the_first_vote_does_not_vote_again_and_a_role_gained_does() -> None:
    asked = pending(1)
    assert not cast(asked, person("eve", Role.OPERATOR)).accepted
    assert cast(asked, person("eve", Role.MAINTAINER)).accepted


def test_a_vote_is_in_time_until_the_very_moment_it_expires() -> None:
    asked = pending(1)
    assert cast(asked, ADA, at=asked.expires_at - timedelta(microseconds=1)).accepted
    for verdict in Verdict:
        assert_ignored(
            cast(asked, ADA, verdict, at=asked.expires_at), asked, "expired at 2026-01-01 13:00 UTC", "again"
        )


def test_expiry_is_the_same_moment_in_every_time_zone() -> None:
    asked = pending(1)
    elsewhere = asked.expires_at.astimezone(timezone(timedelta(hours=-9)))
    assert not cast(asked, ADA, at=elsewhere).accepted
    assert cast(asked, ADA, at=elsewhere - timedelta(seconds=1)).accepted


def test_what_no_place_was_told_of_does_not_expire_and_its_whole_time_runs_from_the_first_place() -> None:
    untold, later = pending().evolve(untold=True), NOW + timedelta(hours=6)
    assert expire(untold, later) == untold and vote(untold, ADA, YES, "cli", later, SHOWN).decided
    told = first_told(untold, later)
    assert (told.untold, told.expires_at) == (False, later + timedelta(hours=1))
    assert first_told(told, later + timedelta(minutes=30)) == told, "the second place changes nothing"
    assert expire(told, told.expires_at).state is ApprovalState.EXPIRED


def test_what_is_told_at_once_has_the_time_it_was_made_with() -> None:
    untold = pending().evolve(untold=True)
    assert first_told(untold, NOW + timedelta(seconds=30)) == untold.evolve(untold=False)


def test_only_what_still_waits_expires() -> None:
    asked = pending(1)
    late = asked.expires_at
    assert expire(asked, late).state is ApprovalState.EXPIRED
    assert expire(asked, late - timedelta(microseconds=1)) == asked
    approved = cast(asked, ADA).approval
    assert expire(approved, late) == approved


@pytest.mark.parametrize("state", [state for state in ApprovalState if state is not ApprovalState.PENDING])
@pytest.mark.parametrize("verdict", Verdict)
def test_a_late_or_replayed_vote_changes_nothing_and_says_what_it_is_by_now(
    state: ApprovalState, verdict: Verdict
) -> None:
    ended = pending(1).evolve(state=state)
    assert_ignored(cast(ended, ADA, verdict), ended, ended.token, f"{state.value} already")


@pytest.mark.parametrize("verdict", Verdict)
def test_it_is_void_when_what_it_showed_has_changed(verdict: Verdict) -> None:
    result = cast(pending(1), ADA, verdict, shown="digest-of-a-newer-head")
    assert not result.accepted and result.decided and "changed" in result.why
    assert result.approval.state is ApprovalState.VOID and result.approval.votes == ()
    assert_ignored(cast(result.approval, BOB), result.approval, "void already")


def test_who_may_not_vote_cannot_void_it_either() -> None:
    asked = pending(1)
    assert_ignored(cast(asked, person("eve", Role.READ_ONLY), shown="forged"), asked, "read-only")


def test_a_vote_does_not_change_the_approval_it_was_cast_on() -> None:
    asked = pending(1)
    cast(asked, ADA)
    assert asked.votes == () and asked.state is ApprovalState.PENDING


@pytest.mark.parametrize(
    "changes",
    [{"token": "rb-7k2m9q"}, {"quorum": 0}, {"expires_at": NOW}, {"created_at": datetime(2026, 1, 1)}],
)
def test_an_approval_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        pending().evolve(**changes)


def test_it_is_the_same_after_a_trip_through_the_store() -> None:
    approval = cast(pending(2), ADA, reason="fine").approval
    wire = approval.wire()
    assert {"shownDigest", "selfApprovalAllowed", "expiresAt"} <= set(wire)
    assert Approval.model_validate(wire) == approval


BALLOTS = st.lists(
    st.tuples(
        st.sampled_from(
            [ADA, BOB, CLEO, REQUESTER, person("eve", Role.READ_ONLY), person("oleg", Role.OPERATOR)]
        ),
        st.sampled_from([YES, YES, YES, NO]),
        st.sampled_from([SHOWN] * 9 + ["changed"]),
        st.integers(0, 70).map(lambda minutes: NOW + timedelta(minutes=minutes)),
        st.sampled_from(["slack", "telegram", "cli"]),
    ),
    max_size=14,
)


@WITHIN_REASON
@given(ballots=BALLOTS, quorum=st.integers(1, 3), own=st.booleans(), in_order=st.booleans())
def test_however_votes_race_at_most_one_decides_and_nothing_changes_afterwards(
    ballots: list[tuple[Person, Verdict, str, datetime, str]], quorum: int, own: bool, in_order: bool
) -> None:
    approval = pending(quorum, own=own)
    decisions: list[VoteResult] = []
    for who, verdict, shown, at, channel in sorted(ballots, key=lambda b: b[3]) if in_order else ballots:
        result = cast(approval, who, verdict, at=at, shown=shown, channel=channel)
        if decisions:
            assert_ignored(result, approval)
        assert len(result.approval.votes) - len(approval.votes) == result.accepted
        assert result.why
        approval = result.approval
        decisions += [result] if result.decided else []
    assert len(decisions) <= 1
    assert bool(decisions) is (approval.state is not ApprovalState.PENDING)
    assert (approval.state is ApprovalState.APPROVED) is (
        len(approval.approvers) == quorum and not any(cast.verdict is NO for cast in approval.votes)
    )
    assert own or "requester" not in approval.approvers
    assert {cast.person for cast in approval.votes}.isdisjoint({"eve", "oleg"})
    assert all(cast.at < approval.expires_at for cast in approval.votes)


@WITHIN_REASON
@given(order=st.permutations([ADA, ADA, BOB, BOB, CLEO, REQUESTER]), quorum=st.integers(1, 3))
def test_the_order_of_approvals_does_not_matter_for_whether_it_is_approved(
    order: list[Person], quorum: int
) -> None:
    approval = pending(quorum)
    results: list[VoteResult] = []
    for who in order:
        results.append(cast(approval, who))
        approval = results[-1].approval
    assert approval.state is ApprovalState.APPROVED
    assert sum(result.decided for result in results) == 1
    assert sum(result.accepted for result in results) == quorum == len(approval.approvers)
