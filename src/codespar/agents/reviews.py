"""Reviews as turns see them: one is asked for, begun by the agent itself, suggested, or overtaken by a new push.

There is one review a pull request and head commit. What it finds is the Review Agent's own work, in `review`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from codespar.agents import cards, consent, requests, reviewcards
from codespar.agents.alone import by_itself, does, proposes
from codespar.agents.turn import Turn
from codespar.domain.agents import AgentKind, AgentState, Outcome
from codespar.domain.autonomy import Decision, Risk
from codespar.domain.base import CodesparError, short_id
from codespar.domain.builds import Run
from codespar.domain.commands import Command, CommandArgs
from codespar.domain.happenings import PullAction, PullChanged
from codespar.domain.messages import FieldLine
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Permission
from codespar.domain.policy import Policy
from codespar.domain.reviews import ReviewRecord, ReviewState
from codespar.domain.tasks import Thread
from codespar.domain.verdicts import FINE, lacks_only_checks
from codespar.store.base import Intent, Project, Unit

WORKFLOW = "review"  # the name under which its workflow is registered: never changes
MOST_A_DAY, MOST_OF_ONE = 200, 20  # reviews that the agent begins by itself, a project and a pull request
MOST_AGAIN = 5  # times that it begins the review of one commit by itself
_BEGINS = (PullAction.OPENED, PullAction.UPDATED, PullAction.READY, PullAction.REOPENED)
_OVERTAKES = (PullAction.UPDATED, PullAction.CLOSED, PullAction.MERGED)


def workflow_id(record: ReviewRecord) -> str:
    return f"{record.id}-run-{record.attempt}"


def look_id(record: ReviewRecord) -> str:
    """The id of the workflow that is its newest second look."""
    return f"{record.id}-look-{record.looks}"


def container(record: ReviewRecord) -> str:
    """The name of the container in which its analysers run."""
    return f"codespar-{record.id}-{record.attempt}"


def review(turn: Turn) -> None:
    """`review PR #n`, on the head commit that the turn's facts hold."""
    facts, number = turn.facts, turn.command.args.number or 0
    if facts is None or facts.problem:
        turn.say(cards.refused("Cannot review", facts.problem if facts else f"PR #{number} was not found"))
        return
    head = facts.text
    known = turn.unit.review_of(turn.project, number, head)
    if known is not None and known.state is ReviewState.POSTED:
        told = f"{known.id} reviewed this very commit already"
        if look_again(turn.unit, known, turn.bench.policy(), turn.now, thread=turn.thread):
            told += "; its checks are looked at once more, and it is approved when they are green"
        turn.say(reviewcards.done(known).evolve(text=f"{told}."))
        return
    if known is not None and known.state is ReviewState.RUNNING:
        if known.thread is None:  # nobody waited for it yet
            turn.unit.update_review(known.evolve(thread=turn.thread))
        turn.say(reviewcards.begun(known, "is under way"))
        return
    record = _begin(
        turn.unit, turn.project, number, head, facts.title, turn.now, by=turn.person.name, thread=turn.thread
    )
    turn.record("review.begun", record.id, {"pr": number, "head": head})
    turn.say(reviewcards.begun(record, "began"))


def pull_changed(unit: Unit, project: Project, policy: Policy, pull: PullChanged, now: datetime) -> None:
    """A pull request changed: a review of an older head is overtaken, and one of this head begins as far as autonomy goes."""
    if pull.action in _OVERTAKES:
        closed = pull.action is not PullAction.UPDATED
        # the head of old news was seen before: it ends nothing, as the review finds out by itself what is true
        old = not closed and unit.review_of(project.name, pull.number, pull.head_commit) is not None
        for record in unit.running_reviews(project.name):
            if (
                record.number == pull.number
                and not old
                and (closed or record.head_commit != pull.head_commit)
            ):
                overtake(
                    unit, record, "the pull request was closed" if closed else "a new commit was pushed", now
                )
    if pull.action not in _BEGINS or pull.draft:
        return
    known = unit.review_of(project.name, pull.number, pull.head_commit)
    if known is not None and (known.state is not ReviewState.SUPERSEDED or pull.action is PullAction.OPENED):
        return
    if _flooded(unit, project.name, pull.number, known, now):
        unit.record(
            at=now,
            actor=f"agent-{project.name}",
            action="review.left-out",
            project=project.name,
            subject=f"PR #{pull.number}",
            detail={"head": pull.head_commit, "why": "enough were reviewed unasked today"},
        )
        return
    decision = _unasked(project, policy, now)
    if does(decision):
        _begin_unasked(unit, decision, project.name, pull.number, pull.head_commit, pull.title, now)
    else:
        command = Command(name="review", args=CommandArgs(number=pull.number))
        consent.suggest(
            unit,
            project.name,
            command,
            decision,
            f"PR #{pull.number} was {pull.action}",
            now,
            seed=f"review:{pull.number}:{pull.head_commit}",
            kind=AlertKind.REVIEWS,
            bound=False,  # the newest commit is what is to be reviewed
            shown=(
                FieldLine(name="PR", value=f"#{pull.number} {pull.title}"),
                FieldLine(name="By", value=pull.author),
            ),
        )


def take_up(unit: Unit, overtaken: ReviewRecord, head: str, policy: Policy, now: datetime) -> None:
    """The code host says that `head` is the newest: its review goes on where news that came late had ended it."""
    known = unit.review_of(overtaken.project, overtaken.number, head)
    project = unit.project(overtaken.project)
    if known is None or known.state is not ReviewState.SUPERSEDED or project is None:
        return
    if known.attempt >= MOST_AGAIN:
        return
    decision = _unasked(project, policy, now)
    if does(decision):
        by, thread = known.by, known.thread
        _begin_unasked(unit, decision, project.name, known.number, head, known.title, now, by, thread)


def checked(unit: Unit, project: Project, policy: Policy, run: Run, now: datetime) -> None:
    """A build or a check of a commit ended: where it ended well, the reviews that wait for it are looked at again."""
    if run.conclusion in FINE:
        for record in unit.reviews_at(project.name, run.commit):
            look_again(unit, record, policy, now)


def look_again(
    unit: Unit, record: ReviewRecord, policy: Policy, now: datetime, *, thread: Thread | None = None
) -> bool:
    """Begin the second look at a review that lacks nothing but green checks, as far as autonomy goes; or note that there is something to look
    at when the review, or the look, that is under way has ended. Whether one is or will be made. Who asks in `thread` is told of its approval.
    """
    waits = record.state is ReviewState.POSTED and lacks_only_checks(record.gates)
    if record.state is ReviewState.RUNNING or (waits and record.looking):
        known = record.evolve(checked=True, thread=record.thread or thread)
        if known != record:
            unit.update_review(known)
        return True
    project = unit.project(record.project)
    if not waits or project is None or record.risk is None:
        return False
    level = Risk(record.risk.level.value)
    decision = by_itself(project, policy, "approve", Permission.APPROVE_PR, level, now)
    if not does(decision) and not proposes(decision):
        return False
    begun = record.evolve(looks=record.looks + 1, looking=True, thread=record.thread or thread)
    unit.update_review(begun)
    payload = {"workflowId": look_id(begun), "review": begun.id, "look": begun.looks}
    unit.intend(Intent(id=look_id(begun), kind="start", target=WORKFLOW, payload=payload), now)
    return True


def _unasked(project: Project, policy: Policy, now: datetime) -> Decision:
    """Whether a review begins that nobody asked for."""
    return by_itself(project, policy, "review", Permission.VIEW_DIFFS, Risk.LOW, now)


def _begin_unasked(
    unit: Unit,
    decision: Decision,
    project: str,
    number: int,
    head: str,
    title: str,
    now: datetime,
    by: str = "",
    thread: Thread | None = None,
) -> None:
    record = _begin(unit, project, number, head, title, now, by=by, thread=thread)
    unit.record(
        at=now,
        actor=f"agent-{project}",
        action="review.begun",
        project=project,
        subject=record.id,
        detail={"pr": number, "head": head, "rule": decision.rule},
    )


def _flooded(unit: Unit, project: str, number: int, known: ReviewRecord | None, now: datetime) -> bool:
    """Whether enough was reviewed unasked today: a review costs money, and anybody may be able to push to a pull request, the same commits
    again and again too."""
    of_all, of_one = unit.begun_unasked(project, number, now - timedelta(days=1))
    again = known is not None and known.attempt >= MOST_AGAIN
    return again or of_all >= MOST_A_DAY or of_one >= MOST_OF_ONE


def _begin(
    unit: Unit,
    project: str,
    number: int,
    head: str,
    title: str,
    now: datetime,
    *,
    by: str = "",
    thread: Thread | None = None,
) -> ReviewRecord:
    """A review of that head, begun: a new one, or the one that failed or was overtaken, once more."""
    for one in requests.suggestions(unit, project):
        if one.command == Command(name="review", args=CommandArgs(number=number)):
            requests.withdraw(unit, one, "its review has begun", now)
    known = unit.review_of(project, number, head)
    if known is not None:
        record = known.evolve(
            state=ReviewState.RUNNING,
            attempt=known.attempt + 1,
            by=by,
            thread=thread,
            problems=(),
            ended_at=None,
        )
        unit.update_review(record)
    else:
        record = _new(unit, project, number, head, title, now, by, thread)
    agent = agent_of(record)
    why = f"asked for by {by}" if by else "a pull request changed"
    unit.create_agent(agent, AgentKind.REVIEW, project, why, record.id, now)
    unit.transition(agent, AgentState.IDLE, "ready", record.id, now)
    unit.transition(agent, AgentState.ACTIVE, f"reviews PR #{number}", record.id, now)
    payload = {"workflowId": workflow_id(record), "review": record.id}
    unit.intend(Intent(id=workflow_id(record), kind="start", target=WORKFLOW, payload=payload), now)
    return record


def _new(
    unit: Unit,
    project: str,
    number: int,
    head: str,
    title: str,
    now: datetime,
    by: str,
    thread: Thread | None,
) -> ReviewRecord:
    for attempt in range(100):
        record = ReviewRecord(
            id=short_id("review", f"{project}:{number}:{head}", attempt),
            project=project,
            number=number,
            head_commit=head,
            title=title,
            by=by,
            thread=thread,
            started_at=now,
        )
        if unit.review(record.id) is None and unit.add_review(record):
            return record
    raise CodesparError("no free review id was found: the store holds an unbelievable number of reviews")


def agent_of(record: ReviewRecord) -> str:
    """The id of the agent that runs this attempt of a review."""
    return record.id if record.attempt == 1 else f"{record.id}-{record.attempt}"


def overtake(unit: Unit, record: ReviewRecord, why: str, now: datetime) -> None:
    """End a running review: nothing of it is posted."""
    verdict = record.verdict if record.posted else None  # what was not posted was not said
    ended = record.evolve(state=ReviewState.SUPERSEDED, verdict=verdict, problems=(why,), ended_at=now)
    unit.update_review(ended)
    agent = agent_of(record)
    if unit.agent(agent) is not None:
        unit.transition(agent, AgentState.TERMINATED, why, record.id, now, Outcome.CANCELLED)
    if record.thread is not None:
        card = reviewcards.overtaken(record, why)
        unit.say(record.project, record.thread, f"{workflow_id(record)}:ended", card, now)


def stop_all(unit: Unit, project: str, why: str, now: datetime) -> int:
    """End every running review of a project. Returns how many."""
    running = unit.running_reviews(project)
    for record in running:
        overtake(unit, record, why, now)
    return len(running)
