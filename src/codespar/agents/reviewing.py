"""What a review and its second look share: their tools, steps that wait for a code host, and a judgement on what is true now.

Posts nothing.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from codespar.agents import evidence, judgement
from codespar.agents.alone import by_itself, may_tell
from codespar.agents.announcer import announce
from codespar.agents.casefile import CaseFile
from codespar.agents.consent import suggest
from codespar.agents.evidence import Evidence, Sources
from codespar.agents.pullwork import approval_facts
from codespar.config import RepositoryConfig
from codespar.config.work import ReviewSettings
from codespar.domain.autonomy import Decision, Risk
from codespar.domain.base import CodesparError
from codespar.domain.commands import Command, CommandArgs
from codespar.domain.diffs import Diff, DiffError, parse
from codespar.domain.messages import FieldLine, NormalizedResponse
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Permission
from codespar.domain.policy import Policy
from codespar.domain.reviews import ReviewRecord, RiskAssessment
from codespar.domain.verdicts import CheckState
from codespar.engine.base import WorkflowContext
from codespar.forges.base import Forge, ForgeError, ForgeUnavailable, NotOnDiff, PullRequest, PullState
from codespar.models.base import Reviewer
from codespar.sandbox.base import Analysers, Sandbox
from codespar.screening.base import Screening
from codespar.signals.base import Advisories
from codespar.store.base import Project, Store, StoreError, Unit

log = structlog.get_logger(__name__)
_PATIENCE = 8  # times that a step is tried where the code host asks for patience: 45 minutes, where it does not say how much
_LONGEST_WAIT = 900.0  # seconds
Answer = dict[str, Any]


@dataclass(frozen=True)
class ReviewTools:
    """What every Review Agent works with."""

    store: Store
    forge: Callable[[str], Forge]
    sources: Callable[
        [str, tuple[str, ...]], Sources
    ]  # of a project, with what its agent was told to remember
    analysers: Analysers
    sandbox: Sandbox
    reviewer: Reviewer | None
    advisories: Advisories | None
    screening: Screening
    settings: ReviewSettings
    policy: Callable[[], Policy]
    clock: Callable[[], datetime]
    folder: Path  # reviews/ of the data folder


class Overtaken(CodesparError):
    """The head commit is not the newest any more (`head` is, then), or the pull request is not open: nothing is posted."""

    def __init__(self, message: str, head: str = "") -> None:
        super().__init__(message)
        self.head = head


class Ended(Exception):
    """A step ended the workflow before its time: `answer` has a `failure`, or by what it was `overtaken`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class Reviewing(ABC):
    """All that lasts is in the store, the review's case file and the workflow's steps."""

    def __init__(self, tools: ReviewTools) -> None:
        self._tools = tools

    @abstractmethod
    def over(self, record: ReviewRecord) -> str | None:
        """Why there is nothing left to do for the record; None while there is. Asked before every step."""

    # steps

    async def to_the_end(self, id: str, way: Awaitable[Answer]) -> Answer:
        """What came of it, whatever happened on the way."""
        try:
            return await way
        except Ended as ended:
            return ended.answer
        except CodesparError as error:
            return {"failure": str(error)}
        except Exception as error:  # a defect of ours: its people are told
            log.error("review.unexpected", review=id, exc_info=True)
            return {"failure": f"an unexpected error ended it: {type(error).__name__}: {error}"}

    async def step(
        self, context: WorkflowContext, name: str, step: Callable[..., Any], id: str, *arguments: Any
    ) -> Answer:
        """A step, done again later for as long as the code host asks for patience. Raises `Ended`."""
        why = ""
        for attempt in range(_PATIENCE):
            again = f"{name}-{attempt + 1}" if attempt else name
            answer: Answer = await context.step(again, self._safely, step, id, *arguments)
            if "failure" in answer or "overtaken" in answer:
                raise Ended(answer)
            if "wait" not in answer:
                return answer
            why = answer["why"]
            await context.sleep(min(_LONGEST_WAIT, answer["wait"] * 2**attempt))
        raise Ended({"failure": f"the code host asked for patience for too long: {why}"})

    async def _safely(self, step: Callable[..., Any], id: str, *arguments: Any) -> Answer:
        """What our ports refuse is an answer, not a crash. What was over before the step ends here."""
        record = await self.record(id)
        if (why := self.over(record)) is not None:
            return {"overtaken": why}
        try:
            return await step(record, *arguments)
        except StoreError:
            raise  # the engine tries the step again
        except Overtaken as error:
            return {"overtaken": str(error), "head": error.head}
        except NotOnDiff as error:
            return {"overtaken": str(error)}
        except ForgeUnavailable as error:
            return {"wait": error.retry_after or 30.0, "why": str(error)}
        except CodesparError as error:
            return {"failure": str(error)}

    # what is kept

    def case(self, record: ReviewRecord) -> CaseFile:
        return CaseFile(self._tools.folder / record.id)

    async def record(self, id: str) -> ReviewRecord:
        record = await self._tools.store.read(lambda unit: unit.review(id))
        if record is None:
            raise CodesparError(f"there is no review {id} in the store")
        return record

    async def change(self, id: str, change: Callable[[ReviewRecord], ReviewRecord]) -> None:
        def write(unit: Unit) -> None:
            known = unit.review(id)
            if known is not None:
                unit.update_review(change(known))

        await self._tools.store.write(write)

    # as it is now

    async def pull(self, record: ReviewRecord) -> PullRequest:
        """The pull request as it is now. Raises `Overtaken` when its head is another, or it is not open."""
        pull = await self._tools.forge(record.project).fetch_pull(record.number)
        if pull.state is not PullState.OPEN:
            raise Overtaken(f"PR #{record.number} is {pull.state}")
        if pull.head_commit != record.head_commit:
            raise Overtaken(f"PR #{record.number} is at {pull.head_commit[:12]} now", pull.head_commit)
        return pull

    async def judge(
        self,
        record: ReviewRecord,
        pull: PullRequest,
        checks: Sequence[CheckState],
        found: Evidence,
        rules: RepositoryConfig,
    ) -> judgement.Judged:
        """The case, judged on how the pull request, its checks, the project and the policies are."""
        tools, case = self._tools, self.case(record)
        project = await tools.store.read(lambda unit: unit.project(record.project))
        if project is None:
            raise CodesparError(f"there is no project {record.project} any more")
        known = await tools.store.read(lambda unit: unit.reviews(record.project, record.number))
        others = tuple(one for one in known if one.id != record.id)
        return await asyncio.to_thread(
            judgement.judge,
            record,
            found,
            await case.diff(),
            await case.reports(),
            await case.opinions(),
            await case.refutations(),
            others,
            rules.review,
            tools.settings,
            evidence.facts_of(pull, found, tools.sources(record.project, ()).own(pull)),
            checks,
            lambda risk: self.ruling(project, risk, found),
            model=tools.reviewer.model if tools.reviewer else None,
            pushed=await self._pushed(record, others),
        )

    def ruling(self, project: Project, risk: RiskAssessment, found: Evidence) -> Decision:
        """What autonomy and policy say now of approving a change of that risk."""
        return by_itself(
            project,
            self._tools.policy(),
            "approve",
            Permission.APPROVE_PR,
            Risk(risk.level.value),
            self._tools.clock(),
            paths=found.touched,
            sensitive=judgement.sensitive(found.change),
        )

    async def _pushed(self, record: ReviewRecord, others: Sequence[ReviewRecord]) -> Diff | None:
        """What was pushed since the last review that was posted; None where there was none, or history was written anew."""
        last = next((one for one in others if one.posted is not None), None)
        if last is None:
            return None
        forge = self._tools.forge(record.project)
        try:
            if await forge.behind(record.head_commit, last.head_commit) != 0:
                return None  # the head that was reviewed is not part of this one
            return await asyncio.to_thread(parse, await forge.diff(last.head_commit, record.head_commit))
        except (ForgeError, DiffError) as error:
            log.info("review.pushed_unknown", review=record.id, error=str(error))
            return None

    # what is told

    def clean(self, text: str) -> str:
        return self._tools.screening.clean(text)

    def tell(
        self, unit: Unit, record: ReviewRecord, card: NormalizedResponse, key: str, now: datetime
    ) -> None:
        """Whoever asked for it, and where nobody did, the places that want to hear of reviews."""
        told = None
        if record.thread is not None:
            unit.say(record.project, record.thread, key, card, now)
            told = (record.thread.channel, record.thread.conversation)
        project = unit.project(record.project)
        if project is not None and may_tell(project, self._tools.policy()) and not record.by:
            announce(unit, record.project, AlertKind.REVIEWS, card, key, now, but=told)

    def suggest_approval(self, unit: Unit, record: ReviewRecord, found: Evidence, now: datetime) -> None:
        """One tap to approve what every gate but the policy's lets through, where the autonomy level says so. Once a commit."""
        project = unit.project(record.project)
        if project is None or record.risk is None:
            return
        decision = self.ruling(project, record.risk, found)
        suggest(
            unit,
            record.project,
            Command(name="approve", args=CommandArgs(number=record.number)),
            decision,
            f"{record.id} found nothing, and its risk is {record.risk.level}",
            now,
            seed=f"approve:{record.number}:{record.head_commit}",
            kind=AlertKind.REVIEWS,
            facts=approval_facts(record.number, record.title, record.head_commit),
            shown=(
                FieldLine(name="PR", value=f"#{record.number} {record.title}"),
                FieldLine(name="Commit", value=record.head_commit[:12]),
            ),
        )


def target(pull: PullRequest) -> tuple[str, bool]:
    """What can change of a pull request while its head stays, and decides whether it may be approved."""
    return pull.base_branch, pull.draft
