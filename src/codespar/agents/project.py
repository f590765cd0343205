"""The Project Agent: receives every message of its project, decides, and owns the task slots.

`gather` reads what a command needs from outside the store; `decide` runs inside the turn's unit of work and never waits. Every command
passes `authorize` once, here. A command that later work brings is answered with what is missing and how to see what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from codespar.agents import board, cards
from codespar.agents.answers import ANSWERS, Turn, not_configured, not_understood
from codespar.agents.turns import Facts, Understood
from codespar.agents.workshop import Workshop
from codespar.codeindex.base import CodeIndex
from codespar.domain.approvals import ApprovalKind, Verdict, vote
from codespar.domain.autonomy import AuthorizationVerdict, authorize
from codespar.domain.base import CodesparError, short_id
from codespar.domain.commands import Command, NotUnderstood, parse
from codespar.domain.messages import FieldLine, NormalizedResponse, Tone
from codespar.domain.people import may
from codespar.domain.tasks import Task, TaskKind, TaskStatus
from codespar.engine.base import WorkflowContext
from codespar.forges.base import Forge, ForgeError, MergeMethod, PullState
from codespar.store.base import Incoming, Intent, Store, Unit


class ProjectAgent:
    def __init__(
        self,
        store: Store,
        workshop: Callable[[str], Workshop],
        forge: Callable[[str], Forge],
        index: Callable[[str], CodeIndex],
        aliases: Mapping[str, str],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._forge = forge
        self._index = index
        self._aliases = aliases
        self._clock = clock
        self._gatherers: dict[str, Callable[[str, Command], Any]] = {
            "diff": self._gather_diff,
            "prs": self._gather_pulls,
            "search": self._gather_search,
            "merge": self._gather_merge,
        }
        self._handlers: dict[str, Callable[[Turn], None]] = ANSWERS | {
            "instruct": self._instruct,
            "fix": self._instruct,
            "cancel": self._cancel,
            "retry": self._retry,
            "merge": self._merge,
            "approve": self._vote,
            "reject": self._vote,
        }

    # reading what lies outside the store

    async def gather(self, incoming: Incoming) -> Understood:
        command = parse(incoming.message.content, aliases=self._aliases)
        if not isinstance(command, Command) or command.name not in self._gatherers:
            return Understood(command=command)
        needed = command.permission
        if needed is not None and not may(incoming.message.author.role, needed):
            return Understood(command=command)  # nothing is read for who may not see it: the turn says so
        try:
            facts = await self._gatherers[command.name](command.project or incoming.project, command)
        except CodesparError as error:
            facts = Facts(problem=str(error))
        return Understood(command=command, facts=facts)

    async def _gather_diff(self, project: str, command: Command) -> Facts:
        forge = self._forge(project)
        target = (command.args.target or "").strip()
        pulls = await forge.list_pulls()
        number = command.args.number
        for pull in pulls:
            if (
                pull.number == number
                or pull.branch == target
                or (target and f"/{target}-" in pull.branch)
                or not (target or number)
            ):
                diff = await forge.diff(pull.base_commit, pull.head_commit)
                return Facts(title=f"PR #{pull.number}: {pull.title}", text=diff)
        return Facts(
            problem=f"no pull request belongs to {target or number or 'this project'}; `prs all` lists them"
        )

    async def _gather_pulls(self, project: str, command: Command) -> Facts:
        state = command.args.state or "open"
        pulls = await self._forge(project).list_pulls(None if state == "all" else PullState(state))
        lines = []
        for pull in pulls[:30]:
            checks = " ".join("✅" if check.passed else "❌" for check in pull.checks)
            lines.append(
                f"#{pull.number} {pull.title} ({pull.state}, +{pull.additions}/-{pull.deletions}) {checks}".rstrip()
            )
        return Facts(title=f"{len(pulls)} pull requests ({state})", text="\n".join(lines))

    async def _gather_search(self, project: str, command: Command) -> Facts:
        forge, index = self._forge(project), self._index(project)
        _, commit = await forge.sync()
        await index.update(forge.base_repository, commit)
        hits = await index.search(command.args.text or "", 12)
        lines = [f"{hit.path}:{hit.line} {hit.symbol or ''} {hit.snippet.strip()[:120]}" for hit in hits]
        return Facts(
            title=f"{len(hits)} places at {commit[:12]}",
            text="\n".join(lines) or "nothing matches these words",
        )

    async def _gather_merge(self, project: str, command: Command) -> Facts:
        pull = await self._forge(project).get_pull(command.args.number or 0)
        if pull.state is not PullState.OPEN:
            return Facts(problem=f"PR #{pull.number} is {pull.state}")
        return Facts(title=pull.title, text=pull.head_commit)

    # deciding

    def decide(self, unit: Unit, incoming: Incoming, understood: Understood, now: datetime) -> None:
        """One turn. Everything it writes is in `unit`."""
        command = understood.command
        known = command if isinstance(command, Command) else None
        turn = Turn(
            unit, incoming, known, understood.facts, now, lambda project: self._workshop(project).max_tasks
        )
        if isinstance(command, NotUnderstood):
            turn.say(not_understood(command))
            return
        spec = command.spec
        project = unit.project(turn.project)
        if project is None:
            linked = ", ".join(found.name for found in unit.projects())
            turn.say(
                cards.refused(
                    "No such project", f"{turn.project} is not linked here.", f"linked are: {linked}"
                )
            )
            return
        decision = authorize(
            turn.person,
            command.permission,
            risk=spec.risk,
            autonomy=project.autonomy,
            by_agent=False,
            paused=project.paused,
            level=command.args.level,
        )
        if decision.verdict is AuthorizationVerdict.DENY:
            unit.record(
                at=now,
                actor=turn.person.name,
                action="denied",
                project=turn.project,
                subject=command.name,
                detail={"rule": decision.rule, "reason": decision.reason},
            )
            able = ", ".join(role.value for role in decision.who_could)
            turn.say(
                cards.refused(
                    f"`{command.name}` is not yours to give",
                    decision.reason,
                    f"ask one of: {able}" if able else "",
                )
            )
            return
        handler = self._handlers.get(command.name)
        if handler is None:
            turn.say(not_configured(spec))
            return
        if decision.verdict is not AuthorizationVerdict.ALLOW:
            turn.say(cards.refused(f"`{command.name}` needs an approval first", decision.reason))
            return
        handler(turn)

    def _instruct(self, turn: Turn) -> None:
        kind = TaskKind.FIX if turn.command.name == "fix" else TaskKind.INSTRUCT
        self._admit(turn, kind, (turn.command.args.text or "").strip())

    def _admit(self, turn: Turn, kind: TaskKind, instruction: str) -> None:
        project = turn.unit.project(turn.project)
        ticket = turn.unit.next_ticket()
        limits = self._workshop(turn.project).limits
        for attempt in range(100):
            task = Task(
                id=short_id("task", f"{turn.incoming.message.channel}:{turn.incoming.message.id}", attempt),
                project=turn.project,
                ticket=ticket,
                kind=kind,
                instruction=instruction,
                requester=turn.person.name,
                thread=turn.incoming.thread,
                status=TaskStatus.QUEUED,
                limits=limits,
                created_at=turn.now,
            )
            stored = board.admit(
                turn.unit,
                task,
                turn.max_tasks,
                turn.now,
                turn.incoming.id,
                paused=bool(project and project.paused),
            )
            if stored is not None:
                turn.record(
                    "task.accepted",
                    stored.id,
                    {"instruction": hashlib.sha256(instruction.encode()).hexdigest(), "kind": kind.value},
                )
                return
        raise CodesparError("no free task id was found: the store holds an unbelievable number of tasks")

    def _cancel(self, turn: Turn) -> None:
        task = self._own_task(turn)
        if task is None:
            return
        if task.status.final:
            turn.say(cards.refused("Nothing to cancel", f"{task.id} has ended: {task.status.value}."))
            return
        if task.cancel_requested_by:
            turn.say(
                cards.refused(
                    "Already being cancelled", f"{task.cancel_requested_by} asked before; it is stopping."
                )
            )
            return
        marked = task.evolve(cancel_requested_by=turn.person.name)
        turn.record("task.cancel", task.id, {})
        never_ran = task.status is TaskStatus.QUEUED and not task.resumes
        if never_ran:
            self._end_cancelled(turn, marked, "it was queued and never ran")
            return
        turn.unit.update_task(marked)
        if task.status is TaskStatus.WAITING:
            self._answer(turn, marked, {"verdict": "cancel", "by": turn.person.name})
        elif task.status is TaskStatus.QUEUED:
            self._end_cancelled(turn, marked, "it waited for a slot to go on")
            return
        text = "It gets 10 seconds to stop; the work so far is kept as a patch."
        turn.say(
            NormalizedResponse(title=f"🛑 Cancelling {task.id}", tone=Tone.WARNING, text=text, agent=task.id)
        )

    def _end_cancelled(self, turn: Turn, task: Task, why: str) -> None:
        from codespar.domain.tasks import TaskResult

        result = TaskResult(
            status=TaskStatus.CANCELLED,
            summary=f"cancelled by {turn.person.name}: {why}",
            cost_micros=task.cost_micros,
        )
        turn.unit.update_task(task)
        board.end(
            turn.unit,
            task,
            result,
            cards.ended_badly(task, result),
            turn.max_tasks,
            turn.now,
            turn.incoming.id,
        )

    def _retry(self, turn: Turn) -> None:
        task = self._own_task(turn)
        if task is None:
            return
        if not task.status.final:
            turn.say(
                cards.refused(
                    "Still under way", f"{task.id} is {task.status.value}.", f"`cancel {task.id}` first"
                )
            )
            return
        self._admit(turn, task.kind, task.instruction)

    def _own_task(self, turn: Turn) -> Task | None:
        id = turn.command.args.id or ""
        task = turn.unit.task(id)
        if task is None or task.project != turn.project:
            turn.say(
                cards.refused(
                    "No such task",
                    f"{id or 'that'} is not a task of {turn.project}.",
                    "`queue` lists the open ones",
                )
            )
            return None
        return task

    def _merge(self, turn: Turn) -> None:
        facts, number = turn.facts, turn.command.args.number or 0
        if facts is None or facts.problem:
            turn.say(cards.refused("Cannot merge", facts.problem if facts else f"PR #{number} was not found"))
            return
        method = turn.command.args.method or "merge"
        id = f"merge-{turn.project}-{number}-{facts.text[:12]}-{turn.incoming.id}"
        payload = {
            "workflowId": id,
            "project": turn.project,
            "number": number,
            "method": method,
            "head": facts.text,
            "by": turn.person.name,
            "thread": turn.incoming.thread.wire(),
        }
        turn.unit.intend(Intent(id=id, kind="start", target="merge", payload=payload), turn.now)
        turn.record("pr.merge", f"PR #{number}", {"head": facts.text, "method": method})
        turn.say(
            NormalizedResponse(
                title=f"🔧 Merging PR #{number} ({method})", text=facts.title, tone=Tone.PROGRESS
            )
        )

    async def merge(self, context: WorkflowContext, payload: dict[str, Any]) -> str:
        """The workflow behind `merge`: exactly the head that was shown, once."""
        return str(await context.step("merge", self._merge_step, payload))

    async def _merge_step(self, payload: dict[str, Any]) -> str:
        from codespar.domain.tasks import Thread

        number, project = int(payload["number"]), str(payload["project"])
        now = self._clock()
        try:
            pull = await self._forge(project).merge(
                number,
                method=MergeMethod(payload["method"]),
                head_commit=str(payload["head"]),
                author=str(payload["by"]),
                at=now,
            )
            card = NormalizedResponse(
                title=f"✅ PR #{number} merged",
                tone=Tone.SUCCESS,
                text=pull.title,
                fields=(
                    FieldLine(name="Commit", value=(pull.merge_commit or "")[:12]),
                    FieldLine(name="For", value=str(payload["by"])),
                ),
            )
        except ForgeError as error:
            card = cards.refused(f"PR #{number} was not merged", str(error))
        key = f"{payload['workflowId']}:done"
        thread = Thread.model_validate(payload["thread"])
        await self._store.write(lambda unit: unit.say(project, thread, key, card, now))
        return card.title

    def _vote(self, turn: Turn) -> None:
        token = turn.command.args.token
        pending = [
            found
            for found in turn.unit.approvals(turn.project, "pending")
            if turn.now < found.expires_at and may(turn.person.role, found.permission)
        ]
        if token is None:
            if len(pending) != 1:
                told = (
                    ", ".join(f"`{found.token}` ({found.action_summary})" for found in pending)
                    or "nothing waits for your answer"
                )
                turn.say(cards.refused("Which one?" if pending else "Nothing to approve", told))
                return
            token = pending[0].token
        approval = turn.unit.approval(token)
        if approval is None or approval.project != turn.project:
            turn.say(
                cards.refused(
                    "No such approval",
                    f"{token} is not known in {turn.project}.",
                    "`approve` alone lists what waits",
                )
            )
            return
        verdict = Verdict.APPROVE if turn.command.name == "approve" else Verdict.REJECT
        outcome = vote(
            approval,
            turn.person,
            verdict,
            turn.incoming.message.channel.value,
            turn.now,
            approval.shown_digest,
            reason=turn.command.args.reason or "",
        )
        turn.unit.save_approval(outcome.approval)
        turn.record(f"approval.{verdict.value}", token, {"accepted": outcome.accepted, "why": outcome.why})
        if not outcome.accepted:
            turn.say(cards.refused("The vote does not count", outcome.why))
            return
        turn.say(NormalizedResponse(title=f"✅ {token}: {outcome.why}", tone=Tone.SUCCESS))
        if outcome.decided and approval.kind is ApprovalKind.BUDGET:
            task = turn.unit.task(approval.subject)
            if task is not None:
                self._answer(turn, task, {"verdict": verdict.value, "by": turn.person.name}, token)

    def _answer(self, turn: Turn, task: Task, message: dict[str, Any], token: str | None = None) -> None:
        """Send the answer to the task that asked."""
        if token is None:
            asked = [a for a in turn.unit.approvals(turn.project, "pending") if a.subject == task.id]
            if not asked:
                return
            token = asked[0].token
            turn.unit.save_approval(asked[0].evolve(state="void"))
        payload = {"topic": f"answer-{token}", "message": message}
        turn.unit.intend(
            Intent(id=f"{token}:answer", kind="send", target=board.workflow_id(task.id), payload=payload),
            turn.now,
        )
