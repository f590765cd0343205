"""The Review Agent: the durable workflow from a head commit to a posted review.

gather → analyse → a model's passes, one a concern → refute → judge → post → finish. Each is a step that finds its own earlier trace when it
is done again after a crash. What is large lies in the review's case file; what was found, and why it is or is not shown, in its record. Words
never decide: verdict and gates are code over facts.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from codespar.agents import evidence, judgement, reviewcards, reviews
from codespar.agents.alone import does
from codespar.agents.evidence import Evidence
from codespar.agents.reviewing import Answer, Overtaken, Reviewing, ReviewTools, target
from codespar.agents.secondlook import SecondLook
from codespar.config import RepositoryConfig
from codespar.domain.agents import AgentState, Outcome
from codespar.domain.reviews import ReviewRecord, ReviewState, ReviewVerdict
from codespar.engine.base import WorkflowContext
from codespar.forges.base import ForgeError, ForgeUnavailable
from codespar.models.base import Concern, ModelError, Opinion, Refutation
from codespar.sandbox.base import AnalyserReport, AnalysisOrder, SandboxError
from codespar.store.base import Notice, Unit

log = structlog.get_logger(__name__)
CHECKS_EVERY, CHECKS_LOOKS = 60.0, 30  # seconds, and how often checks that are under way are waited for
MOST_REFUTED = 20  # findings of a model whose refutation is paid for
_MOST_OF_A_CONCERN = 8
_FILE_AROUND = 60_000  # characters of a file that the refutation reads


class ReviewAgent(Reviewing):
    """One object serves every review."""

    def __init__(self, tools: ReviewTools) -> None:
        super().__init__(tools)
        self._second = SecondLook(tools)

    def on_review(self, notice: Notice) -> None:
        """A review's record changed: one that was overtaken need not be analysed to its end."""
        asyncio.get_running_loop().create_task(self._stop_if_over(notice.key), name=f"stop-{notice.key}")

    async def _stop_if_over(self, id: str) -> None:
        record = await self._tools.store.read(lambda unit: unit.review(id))
        if record is not None and record.state not in (ReviewState.RUNNING, ReviewState.POSTED):
            try:
                await self._tools.analysers.stop(reviews.container(record))
            except SandboxError as error:
                log.warning("review.container", review=id, error=str(error))

    async def run(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """The workflow. Returns the record's final state; of a second look, what came of it."""
        if "look" in payload:
            return await self._second.run(context, payload)
        id = str(payload["review"])
        answer = await self.to_the_end(id, self._through(context, id))
        return str(await context.step("finish", self._finish, id, answer))

    def over(self, record: ReviewRecord) -> str | None:
        if record.state is ReviewState.RUNNING:
            return None
        return "; ".join(record.problems) or record.state.value

    async def _through(self, context: WorkflowContext, id: str) -> Answer:
        await self.step(context, "gather", self._gather, id)
        await self.step(context, "analyse", self._analyse, id)
        if self._tools.reviewer is not None:
            for concern in Concern:
                await self.step(context, f"model-{concern}", self._ask_model, id, concern.value)
            await self.step(context, "refute", self._refute, id)
        for look in range(CHECKS_LOOKS):
            answer = await self.step(context, f"checks-{look}", self._look_at_checks, id)
            if not answer["waits"]:
                break
            await context.sleep(CHECKS_EVERY)
        return await self.step(context, "post", self._post, id)

    # facts

    async def _gather(self, record: ReviewRecord) -> Answer:
        pull = await self.pull(record)
        memories = await self._tools.store.read(lambda unit: unit.memories(record.project))
        sources = self._tools.sources(record.project, tuple(memory.text for memory in memories))
        found, diff, patch, rules = await evidence.gather(sources, pull, self._tools.clock())
        await self.case(record).open(found, rules, diff, patch)
        # as it is now: it may have been overtaken while all this was read
        await self.change(
            record.id, lambda known: known.evolve(base_commit=pull.base_commit, title=pull.title)
        )
        return {}

    async def _analyse(self, record: ReviewRecord) -> Answer:
        """What the analysers find, and what a model is told of it."""
        case = self.case(record)
        found, rules = await case.evidence(), await case.rules()
        if not found.analysable or not found.changed:
            return {}
        image = await self._environment(record, found, rules)
        order = AnalysisOrder(
            name=reviews.container(record),
            owner=record.id,
            project=record.project,
            base_commit=found.pull.base_commit,
            repository=self._tools.forge(record.project).base_repository,
            patch=case.patch,
            changed=found.changed,
            folder=case.folder / f"analysis-{record.attempt}",
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
        diff = await case.diff()
        if self._tools.advisories is not None:
            reports = (*reports, await judgement.advisories(self._tools.advisories, diff))
        await case.keep_reports(reports)
        heard = await asyncio.to_thread(judgement.heard, reports, diff)
        await case.keep_evidence(found.evolve(brief=found.brief.evolve(analysers=heard)))
        return {}

    async def _environment(
        self, record: ReviewRecord, found: Evidence, rules: RepositoryConfig
    ) -> str | None:
        """The image in which the repository's own analysers run, as its tasks do; None where there are none, or it cannot be built."""
        if not rules.analysers:
            return None
        try:
            return await self._tools.sandbox.ensure_image(
                project=record.project,
                base_commit=found.tip,
                setup=rules.environment,
                read_file=self._tools.forge(record.project).read_file,
                say=log.info,
            )
        except SandboxError as error:
            log.warning("review.environment", review=record.id, error=str(error))
            return None

    # the model

    async def _ask_model(self, record: ReviewRecord, concern: str) -> Answer:
        assert self._tools.reviewer is not None, "the step is not reached without a model"
        case, asked = self.case(record), Concern(concern)
        try:
            brief = (await case.evidence()).brief
            opinion = await self._tools.reviewer.review(brief, asked, _MOST_OF_A_CONCERN)
        except ModelError as error:
            opinion = Opinion(concern=asked, cut_short=f"{concern}: {error}")
        await case.keep_opinion(opinion)
        return {}

    async def _refute(self, record: ReviewRecord) -> Answer:
        """Put each finding to the test. Each answer is kept as it comes, so that a crash pays for none of them twice."""
        reviewer, case = self._tools.reviewer, self.case(record)
        assert reviewer is not None, "the step is not reached without a model"
        found, known = await case.evidence(), await case.refutations()
        said = [one for opinion in await case.opinions() for one in opinion.findings]
        doubtful = await asyncio.to_thread(judgement.to_refute, said, await case.diff())
        forge = self._tools.forge(record.project)
        for finding in doubtful[:MOST_REFUTED]:
            key = judgement.refuted_as(finding)
            if key in known:
                continue
            try:
                raw = await forge.read_file(record.head_commit, finding.path)
                text = (raw or b"").decode(errors="replace")
                code = await asyncio.to_thread(judgement.numbered_code, text, finding, _FILE_AROUND)
                answer = await reviewer.refute(found.brief, finding, code)
            except ForgeUnavailable:
                raise
            except (ForgeError, ModelError) as error:
                answer = Refutation(refuted=False, why=f"not checked: {error}")
            known[key] = answer
            await case.keep_refutations(known)
        return {}

    # judging and posting

    async def _look_at_checks(self, record: ReviewRecord) -> Answer:
        """Whether only checks that are still under way stand between it and an approval: then it is worth waiting for them."""
        pull, case = await self.pull(record), self.case(record)
        checks = await evidence.checks_of(self._tools.forge(record.project), pull)
        found = await case.evidence()
        if found.required_unread or all(check.conclusion is not None for check in checks):
            return {"waits": False}
        judged = await self.judge(record, pull, checks, found, await case.rules())
        failed = [gate.name for gate in judged.record.gates if not gate.passed]
        return {"waits": failed == ["checks"] and judged.record.verdict is ReviewVerdict.COMMENT}

    async def _post(self, record: ReviewRecord) -> Answer:
        """Judge on what is true now, and post it, in one step: nothing may change between the two unseen."""
        forge, case = self._tools.forge(record.project), self.case(record)
        pull, found = await self.pull(record), await case.evidence()
        if pull.base_branch != found.pull.base_branch:
            raise Overtaken(f"PR #{record.number} is a change to {pull.base_branch} now", pull.head_commit)
        checks = await evidence.checks_of(forge, pull)
        judged = await self.judge(record, pull, checks, found, await case.rules())
        link = judgement.linker(pull)
        draft = await asyncio.to_thread(judgement.draft, judged, await case.diff(), link, self.clean)
        if draft.verdict is ReviewVerdict.APPROVE:
            if target(await self.pull(record)) != target(pull):
                return {"wait": 1.0, "why": "it was aimed elsewhere while it was judged"}
            project = await self._tools.store.read(lambda unit: unit.project(record.project))
            risk = judged.record.risk
            if project is None or risk is None or not does(self.ruling(project, risk, found)):
                return {"wait": 1.0, "why": "its project's level was lowered while it was judged"}
        if self.over(await self.record(record.id)) is not None:
            raise Overtaken(f"PR #{record.number} changed, or its project was stopped, while it was judged")
        # should this be done again after a crash, it is known what was to be posted
        await self.change(record.id, lambda known: known.evolve(verdict=draft.verdict))
        posted = await forge.submit_review(record.number, draft, record.id)
        judged = judgement.as_posted(judged, posted, link, self.clean)
        late = record.verdict is posted.verdict is ReviewVerdict.COMMENT is not draft.verdict
        # from here on it stands at the host, whatever else happens: the next review has to know what it said
        await self.change(record.id, lambda known: _with_what_was_posted(known, judged.record, late))
        if judged.unplaced:
            await forge.comment(record.number, judged.unplaced, f"{record.id}-rest")
        if judged.resolve:
            await forge.resolve(record.number, judged.resolve, f"Fixed in {record.head_commit[:12]}.")
        return {"url": posted.url or pull.url}

    # finish

    async def _finish(self, id: str, answer: Answer) -> str:
        now = self._tools.clock()
        told = "failure" not in answer and "overtaken" not in answer
        found = await self.case(await self.record(id)).evidence() if told else None

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
                why = self.clean(str(answer["failure"]))
                verdict = record.verdict if record.posted else None  # what was not posted was not said
                ended = record.evolve(
                    state=ReviewState.FAILED, verdict=verdict, problems=(why,), ended_at=now
                )
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
            self.tell(unit, ended, card, f"{reviews.workflow_id(ended)}:ended", now)
            if found is not None:
                self._go_on(unit, ended, found)
            return ended.state.value

        return await self._tools.store.write(finish)

    def _go_on(self, unit: Unit, record: ReviewRecord, found: Evidence) -> None:
        """What follows from a review that was posted as a comment: a suggestion, or a look at checks that ended meanwhile."""
        now = self._tools.clock()
        if record.verdict is not ReviewVerdict.COMMENT:
            return
        if all(gate.passed or gate.name == "policy" for gate in record.gates):
            self.suggest_approval(unit, record, found, now)
        elif record.checked:
            reviews.look_again(unit, record, self._tools.policy(), now)


def _with_what_was_posted(known: ReviewRecord, posted: ReviewRecord, late: bool) -> ReviewRecord:
    """The record with what stands at the host. Who waits for it, and whether it was ended meanwhile, it knows itself.

    `late`: it was posted as a comment before a crash, and could be an approval now: that is for a second look to give."""
    why = "they were not green when it was posted"
    return known.evolve(
        base_commit=posted.base_commit,
        findings=posted.findings,
        risk=posted.risk,
        verdict=posted.verdict,
        gates=tuple(
            gate.evolve(passed=False, reason=why) if late and gate.name == "checks" else gate
            for gate in posted.gates
        ),
        model=posted.model,
        cut_short=posted.cut_short,
        analysers=posted.analysers,
        posted=posted.posted,
        problems=posted.problems if known.state is ReviewState.RUNNING else known.problems,
    )
