"""The Review Agent: the durable workflow from a head commit to a posted review.

gather → analyse → a model's passes, one a concern → refute → judge → post → finish. Each is a step that finds its own earlier trace when it
is done again after a crash. What is large lies in the review's folder; what was found, and why it is or is not shown, in its record. Words
never decide: verdict and gates are code over facts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from codespar.agents import evidence, judgement, reviewcards, reviews
from codespar.agents.alone import by_itself, may_tell, proposes
from codespar.agents.announcer import announce
from codespar.agents.consent import suggest
from codespar.agents.evidence import Evidence, Sources
from codespar.agents.pullwork import approval_facts
from codespar.config import RepositoryConfig
from codespar.config.work import ReviewSettings
from codespar.domain.agents import AgentState, Outcome
from codespar.domain.autonomy import Decision, Risk
from codespar.domain.base import CodesparError
from codespar.domain.commands import Command, CommandArgs
from codespar.domain.diffs import Diff, DiffError, parse
from codespar.domain.messages import FieldLine
from codespar.domain.notifications import AlertKind
from codespar.domain.people import Permission
from codespar.domain.policy import Policy
from codespar.domain.reviews import ReviewRecord, ReviewState, ReviewVerdict, RiskAssessment
from codespar.engine.base import WorkflowContext
from codespar.forges.base import (
    Forge,
    ForgeError,
    ForgeUnavailable,
    NotOnDiff,
    PullRequest,
    PullState,
    ReviewDraft,
)
from codespar.models.base import Concern, ModelError, Opinion, Refutation, Reviewer
from codespar.sandbox.base import AnalyserReport, Analysers, AnalysisOrder, Sandbox, SandboxError
from codespar.screening.base import Screening
from codespar.signals.base import Advisories
from codespar.store.base import Notice, Store, StoreError, Unit

log = structlog.get_logger(__name__)
CHECKS_EVERY, CHECKS_LOOKS = 60.0, 30  # seconds, and how often checks that are under way are waited for
MOST_REFUTED = 20  # findings of a model that a second look is paid for
_MOST_OF_A_CONCERN = 8
_PATIENCE = 8  # times that a step is tried where the code host asks for patience: 45 minutes, where it does not say how much
_LONGEST_WAIT = 900.0  # seconds
_FILE_AROUND = 60_000  # characters of a file that the second look reads
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


class ReviewAgent:
    """One object serves every review: all that lasts is in the store, the review's folder and the workflow's steps."""

    def __init__(self, tools: ReviewTools) -> None:
        self._tools = tools

    def on_review(self, notice: Notice) -> None:
        """A review's record changed: one that was overtaken need not be analysed to its end."""
        asyncio.get_running_loop().create_task(self._stop_if_over(notice.key), name=f"stop-{notice.key}")

    async def _stop_if_over(self, id: str) -> None:
        record = await self._tools.store.read(lambda unit: unit.review(id))
        if record is not None and record.state is not ReviewState.RUNNING:
            try:
                await self._tools.analysers.stop(reviews.container(record))
            except SandboxError as error:
                log.warning("review.container", review=id, error=str(error))

    async def run(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """The workflow. Returns the record's final state."""
        id = str(payload["review"])
        try:
            answer = await self._through(context, id)
        except CodesparError as error:
            answer = {"failure": str(error)}
        except Exception as error:  # a defect of ours: its people are told
            log.error("review.unexpected", review=id, exc_info=True)
            answer = {"failure": f"an unexpected error ended it: {type(error).__name__}: {error}"}
        return str(await context.step("finish", self._finish, id, answer))

    async def _through(self, context: WorkflowContext, id: str) -> Answer:
        for name, step in (("gather", self._gather), ("analyse", self._analyse)):
            answer = await self._step(context, name, step, id)
            if "failure" in answer or "overtaken" in answer:
                return answer
        if self._tools.reviewer is not None:
            for concern in Concern:
                answer = await self._step(context, f"model-{concern}", self._ask_model, id, concern.value)
                if "failure" in answer or "overtaken" in answer:
                    return answer
            answer = await self._step(context, "refute", self._refute, id)
            if "failure" in answer or "overtaken" in answer:
                return answer
        for look in range(CHECKS_LOOKS):
            answer = await self._step(context, f"checks-{look}", self._look_at_checks, id)
            if "failure" in answer or "overtaken" in answer:
                return answer
            if not answer["waits"]:
                break
            await context.sleep(CHECKS_EVERY)
        return await self._step(context, "post", self._post, id)

    async def _step(
        self, context: WorkflowContext, name: str, step: Callable[..., Any], id: str, *arguments: Any
    ) -> Answer:
        """A step, done again later for as long as the code host asks for patience."""
        why = ""
        for attempt in range(_PATIENCE):
            again = f"{name}-{attempt + 1}" if attempt else name
            answer: Answer = await context.step(again, self._safely, step, id, *arguments)
            if "wait" not in answer:
                return answer
            why = answer["why"]
            await context.sleep(min(_LONGEST_WAIT, answer["wait"] * 2**attempt))
        return {"failure": f"the code host asked for patience for too long: {why}"}

    async def _safely(self, step: Callable[..., Any], id: str, *arguments: Any) -> Answer:
        """What our ports refuse is an answer, not a crash. A review that was overtaken before the step ends here."""
        record = await self._record(id)
        if record.state is not ReviewState.RUNNING:
            return {"overtaken": "; ".join(record.problems) or record.state.value}
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

    # facts

    async def _gather(self, record: ReviewRecord) -> Answer:
        pull = await self._pull(record)
        folder = self._folder(record)
        memories = await self._tools.store.read(lambda unit: unit.memories(record.project))
        sources = self._tools.sources(record.project, tuple(memory.text for memory in memories))
        found, diff, patch, rules = await evidence.gather(sources, pull, self._tools.clock())
        written = {
            "evidence.json": found.model_dump_json(by_alias=True).encode(),
            "rules.json": rules.model_dump_json(by_alias=True).encode(),
            "diff": diff.encode(errors="surrogateescape"),
            "change.patch": patch,
        }
        await asyncio.to_thread(_write, folder, written)
        # as it is now: it may have been overtaken while all this was read
        await self._change(
            record.id, lambda known: known.evolve(base_commit=pull.base_commit, title=pull.title)
        )
        return {}

    async def _pull(self, record: ReviewRecord) -> PullRequest:
        """The pull request as it is now. Raises `Overtaken` when its head is another, or it is not open."""
        pull = await self._tools.forge(record.project).fetch_pull(record.number)
        if pull.state is not PullState.OPEN:
            raise Overtaken(f"PR #{record.number} is {pull.state}")
        if pull.head_commit != record.head_commit:
            raise Overtaken(f"PR #{record.number} is at {pull.head_commit[:12]} now", pull.head_commit)
        return pull

    async def _analyse(self, record: ReviewRecord) -> Answer:
        found, rules = await self._evidence(record)
        if not found.analysable or not found.changed:
            return {}
        forge = self._tools.forge(record.project)
        image = None
        try:
            if rules.analysers:  # they are the repository's own, and run where its tasks run
                image = await self._tools.sandbox.ensure_image(
                    project=record.project,
                    base_commit=found.tip,
                    setup=rules.environment,
                    read_file=forge.read_file,
                    say=log.info,
                )
        except SandboxError as error:
            log.warning("review.environment", review=record.id, error=str(error))
        order = AnalysisOrder(
            name=reviews.container(record),
            owner=record.id,
            project=record.project,
            base_commit=found.pull.base_commit,
            repository=forge.base_repository,
            patch=self._folder(record) / "change.patch",
            changed=found.changed,
            folder=self._folder(record) / f"analysis-{record.attempt}",
            limits=self._tools.sources(record.project, ()).limits,
            analysers=rules.analysers if image else (),
            without=rules.review.without,
            environment_image=image,
        )
        try:
            reports = await self._tools.analysers.analyse(order)
        except SandboxError as error:
            reports = (AnalyserReport(analyser="all", problem=str(error)),)
        if rules.analysers and image is None:
            names = ", ".join(one.name for one in rules.analysers)
            broken = AnalyserReport(analyser=names, problem="the repository's environment could not be built")
            reports = (*reports, broken)
        if self._tools.advisories is not None:
            reports = (*reports, await judgement.advisories(self._tools.advisories, await self._diff(record)))
        text = json.dumps([report.wire() for report in reports]).encode()
        await asyncio.to_thread(_write, self._folder(record), {"reports.json": text})
        return {}

    # the model

    async def _ask_model(self, record: ReviewRecord, concern: str) -> Answer:
        found, _ = await self._evidence(record)
        assert self._tools.reviewer is not None, "the step is not reached without a model"
        heard = await asyncio.to_thread(
            judgement.heard, await self._reports(record), await self._diff(record)
        )
        brief = found.brief.evolve(analysers=heard)
        try:
            opinion = await self._tools.reviewer.review(brief, Concern(concern), _MOST_OF_A_CONCERN)
        except ModelError as error:
            opinion = Opinion(concern=Concern(concern), cut_short=f"{concern}: {error}")
        text = opinion.model_dump_json(by_alias=True).encode()
        await asyncio.to_thread(_write, self._folder(record), {f"opinion-{concern}.json": text})
        return {}

    async def _refute(self, record: ReviewRecord) -> Answer:
        """The second look. Each answer is kept as it comes, so that a crash pays for none of them twice."""
        found, _ = await self._evidence(record)
        reviewer = self._tools.reviewer
        assert reviewer is not None, "the step is not reached without a model"
        opinions = await self._opinions(record)
        diff = await self._diff(record)
        said = [one for opinion in opinions for one in opinion.findings]
        doubtful = await asyncio.to_thread(judgement.to_refute, said, diff)
        path = self._folder(record) / "refutations.json"
        known: dict[str, Answer] = json.loads(path.read_bytes()) if path.exists() else {}
        forge = self._tools.forge(record.project)
        for finding in doubtful[:MOST_REFUTED]:
            if finding.fingerprint in known:
                continue
            raw = await forge.read_file(record.head_commit, finding.path)
            text = (raw or b"").decode(errors="replace")
            code = await asyncio.to_thread(judgement.numbered_code, text, finding, _FILE_AROUND)
            try:
                answer = await reviewer.refute(found.brief, finding, code)
            except ModelError as error:
                answer = Refutation(refuted=False, why=f"not checked: {error}")
            known[finding.fingerprint] = answer.wire()
            await asyncio.to_thread(_write, self._folder(record), {path.name: json.dumps(known).encode()})
        return {}

    # judging and posting

    async def _look_at_checks(self, record: ReviewRecord) -> Answer:
        """Whether only checks that are still under way stand between it and an approval: then it is worth waiting for them."""
        pull = await self._pull(record)
        judged, _ = await self._judge(record, pull)
        failed = [gate.name for gate in judged.record.gates if not gate.passed]
        if failed != ["checks"] or judged.record.verdict is not ReviewVerdict.COMMENT:
            return {"waits": False}
        checks = await evidence.checks_of(self._tools.forge(record.project), pull)
        return {"waits": any(check.conclusion is None for check in checks)}

    async def _post(self, record: ReviewRecord) -> Answer:
        """Judge on what is true now, and post it, in one step: nothing may change between the two unseen."""
        forge = self._tools.forge(record.project)
        pull = await self._pull(record)
        judged, draft = await self._judge(record, pull)
        if draft.verdict is ReviewVerdict.APPROVE and _target(await self._pull(record)) != _target(pull):
            return {"wait": 1.0, "why": "it was aimed elsewhere while it was judged"}
        if (await self._record(record.id)).state is not ReviewState.RUNNING:
            raise Overtaken(f"PR #{record.number} changed, or its project was stopped, while it was judged")
        posted = await forge.submit_review(record.number, draft, record.id)
        judged = judgement.as_posted(judged, posted, judgement.linker(pull), self._clean)
        # from here on it stands at the host, whatever else happens: the next review has to know what it said
        await self._change(record.id, lambda known: _standing_now(known, judged.record))
        if judged.unplaced:
            await forge.comment(record.number, judged.unplaced, f"{record.id}-rest")
        if judged.resolve:
            await forge.resolve(record.number, judged.resolve, f"Fixed in {record.head_commit[:12]}.")
        return {"url": posted.url or pull.url}

    async def _judge(self, record: ReviewRecord, pull: PullRequest) -> tuple[judgement.Judged, ReviewDraft]:
        found, rules = await self._evidence(record)
        earlier = await self._tools.store.read(lambda unit: unit.reviews(record.project, record.number))
        project = await self._tools.store.read(lambda unit: unit.project(record.project))
        path = self._folder(record) / "refutations.json"
        refutations = {
            key: Refutation.model_validate(one)
            for key, one in (json.loads(path.read_bytes()) if path.exists() else {}).items()
        }
        own = self._tools.sources(record.project, ()).own(pull)
        checks = await evidence.checks_of(self._tools.forge(record.project), pull)

        def ruling(risk: RiskAssessment) -> Decision:
            if project is None:
                raise CodesparError(f"there is no project {record.project} any more")
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

        others = tuple(one for one in earlier if one.id != record.id)
        diff, pushed = await self._diff(record), await self._pushed(record, others)
        judged = await asyncio.to_thread(
            judgement.judge,
            record,
            found,
            diff,
            await self._reports(record),
            await self._opinions(record),
            refutations,
            others,
            rules.review,
            self._tools.settings,
            evidence.facts_of(pull, found, own),
            checks,
            ruling,
            model=self._tools.reviewer.model if self._tools.reviewer else None,
            pushed=pushed,
        )
        return judged, await asyncio.to_thread(
            judgement.draft, judged, diff, judgement.linker(pull), self._clean
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

    def _clean(self, text: str) -> str:
        return self._tools.screening.clean(text)

    # finish

    async def _finish(self, id: str, answer: Answer) -> str:
        now = self._tools.clock()
        told = "failure" not in answer and "overtaken" not in answer
        found = (await self._evidence(await self._record(id)))[0] if told else None

        def finish(unit: Unit) -> str:
            record = unit.review(id)
            if record is None or record.ended_at is not None:
                return record.state.value if record else "gone"
            if "overtaken" in answer:
                reviews.overtake(unit, record, str(answer["overtaken"]), now)
                if not record.by:
                    reviews.take_up(unit, record, str(answer.get("head", "")), self._tools.policy(), now)
                return ReviewState.SUPERSEDED.value
            if "failure" in answer:
                why = self._clean(str(answer["failure"]))
                ended = record.evolve(state=ReviewState.FAILED, problems=(why,), ended_at=now)
                card, outcome = reviewcards.failed(ended, why), Outcome.FAILED
            else:
                ended = record.evolve(state=ReviewState.POSTED, ended_at=now)
                card, outcome = reviewcards.done(ended, str(answer.get("url", ""))), Outcome.SUCCEEDED
            unit.update_review(ended)
            agent = reviews.agent_of(ended)
            unit.transition(agent, AgentState.TERMINATED, ended.state.value, id, now, outcome)
            unit.record(
                at=now,
                actor=id,
                action=f"review.{ended.state.value}",
                project=ended.project,
                subject=f"PR #{ended.number}",
                detail={"head": ended.head_commit, "verdict": ended.verdict.value if ended.verdict else None},
            )
            self._tell(unit, ended, card, found, now)
            return ended.state.value

        return await self._tools.store.write(finish)

    def _tell(
        self, unit: Unit, record: ReviewRecord, card: Any, found: Evidence | None, now: datetime
    ) -> None:
        key = f"{reviews.workflow_id(record)}:ended"
        project = unit.project(record.project)
        told = None
        if record.thread is not None:
            unit.say(record.project, record.thread, key, card, now)
            told = (record.thread.channel, record.thread.conversation)
        if project is not None and may_tell(project, self._tools.policy()) and not record.by:
            announce(unit, record.project, AlertKind.REVIEWS, card, key, now, but=told)
        if project is None or found is None or record.state is not ReviewState.POSTED:
            return
        others = [gate for gate in record.gates if gate.name != "policy" and not gate.passed]
        if record.verdict is not ReviewVerdict.COMMENT or others or record.risk is None:
            return
        decision = by_itself(
            project,
            self._tools.policy(),
            "approve",
            Permission.APPROVE_PR,
            Risk(record.risk.level.value),
            now,
            paths=found.touched,
            sensitive=judgement.sensitive(found.change),
        )
        if proposes(decision) and decision.ask is not None:
            suggest(
                unit,
                record.project,
                Command(name="approve", args=CommandArgs(number=record.number)),
                decision.ask,
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

    # what is kept

    def _folder(self, record: ReviewRecord) -> Path:
        return self._tools.folder / record.id

    async def _record(self, id: str) -> ReviewRecord:
        record = await self._tools.store.read(lambda unit: unit.review(id))
        if record is None:
            raise CodesparError(f"there is no review {id} in the store")
        return record

    async def _change(self, id: str, change: Callable[[ReviewRecord], ReviewRecord]) -> None:
        def write(unit: Unit) -> None:
            known = unit.review(id)
            if known is not None:
                unit.update_review(change(known))

        await self._tools.store.write(write)

    async def _evidence(self, record: ReviewRecord) -> tuple[Evidence, RepositoryConfig]:
        folder = self._folder(record)
        found, rules = await asyncio.to_thread(
            lambda: ((folder / "evidence.json").read_bytes(), (folder / "rules.json").read_bytes())
        )
        return Evidence.model_validate_json(found), RepositoryConfig.model_validate_json(rules)

    async def _diff(self, record: ReviewRecord) -> Diff:
        raw = await asyncio.to_thread((self._folder(record) / "diff").read_bytes)
        return await asyncio.to_thread(parse, raw.decode(errors="surrogateescape"))

    async def _reports(self, record: ReviewRecord) -> tuple[AnalyserReport, ...]:
        path = self._folder(record) / "reports.json"
        raw = await asyncio.to_thread(path.read_bytes) if path.exists() else b"[]"
        return tuple(AnalyserReport.model_validate(one) for one in json.loads(raw))

    async def _opinions(self, record: ReviewRecord) -> tuple[Opinion, ...]:
        folder = self._folder(record)
        paths = [path for concern in Concern if (path := folder / f"opinion-{concern}.json").exists()]
        raw = await asyncio.to_thread(lambda: [path.read_bytes() for path in paths])
        return tuple(Opinion.model_validate_json(one) for one in raw)


def _standing_now(known: ReviewRecord, posted: ReviewRecord) -> ReviewRecord:
    """The record with what was posted. Who waits for it, and whether it was ended meanwhile, it knows itself."""
    running = known.state is ReviewState.RUNNING
    return posted.evolve(
        state=known.state,
        by=known.by,
        thread=known.thread,
        ended_at=known.ended_at,
        problems=posted.problems if running else known.problems,
    )


def _target(pull: PullRequest) -> tuple[str, bool]:
    """What can change of a pull request while its head stays, and decides whether it may be approved."""
    return pull.base_branch, pull.draft


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        unfinished = folder / f"{name}.part"
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)
