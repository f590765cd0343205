"""From what a container left behind to a pull request: harvest, verify, publish.

Nothing that comes out of a container is trusted: not the patch, not what it says of the tests, not the agent's own words.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from codespar.agents import cards
from codespar.agents.leavings import read_output
from codespar.agents.supervisor import Supervisor
from codespar.agents.workshop import Answer, Tools, cancelled, failure
from codespar.domain.issues import alone, harmless, mended, plain_title
from codespar.domain.tasks import Task, TaskKind, TaskResult, TaskSpec, TaskStatus, TestRun, money
from codespar.forges.base import Check, PatchRefused
from codespar.sandbox.base import Job, Order

_TITLE = re.compile(
    r"^(feat|fix|docs|test|refactor|chore|perf|build|ci|style)(\([\w./ -]{1,40}\))?!?: \S.{2,}$"
)


class Delivery:
    """The steps after the work. Each finds its own earlier trace when it is done again."""

    def __init__(self, tools: Tools, supervisor: Supervisor) -> None:
        self._tools = tools
        self._supervisor = supervisor

    async def harvest(self, task_id: str, attempt: int, document: dict[str, Any], worked: Answer) -> Answer:
        await self._supervisor.tell(task_id, "checking the change")
        task, spec = await self._tools.task(task_id), TaskSpec.model_validate(document)
        forge = self._tools.workshop(task.project).forge
        path = self._tools.folder_of(task_id, attempt) / "out" / "changes.patch"
        patch = read_output(path, spec.limits.output_bytes)
        if not patch.strip():
            return failure(
                "the task changed nothing",
                last_line=str(worked["summary"])[:500],
                next_step=f"say more exactly what should change (files that .gitignore names do not count), or `retry {task_id}`",
            )
        summary = await asyncio.to_thread(self._tools.screening.clean, str(worked["summary"]))
        title = pull_title(summary, task)
        branch = f"codespar/{task_id}-{slug(task.title)}"
        try:
            commit = await forge.import_patch(
                base_commit=spec.base_commit,
                patch=patch,
                branch=branch,
                message=commit_message(task, title),
                author=task.requester,
                at=task.started_at or task.created_at,
            )
        except PatchRefused as error:
            return failure(f"the change that came out was refused: {error}", patch=str(path))
        changes = await forge.changes(spec.base_commit, commit)
        if len(changes) > spec.limits.output_files:
            return failure(
                f"the change touches {len(changes)} files; at most {spec.limits.output_files} are allowed",
                patch=str(path),
            )
        diff = await forge.diff(spec.base_commit, commit)
        paths = [change.path for change in changes]
        problems = await asyncio.to_thread(self._tools.screening.problems, paths, diff, spec.blocked_paths)
        if problems:
            return failure(
                "the change may not go out: " + "; ".join(problems[:5]),
                next_step="instruct again without those, or change `blocked_paths`; nothing was pushed",
                patch=str(path),
            )
        return {"branch": branch, "commit": commit, "title": title, "summary": summary}

    async def verify(self, task_id: str, attempt: int, document: dict[str, Any]) -> Answer:
        spec = TaskSpec.model_validate(document)
        if spec.test_command is None:
            return {"tests": None}
        await self._supervisor.tell(task_id, "running the project's tests in a clean container")
        task = await self._tools.task(task_id)
        folder = self._tools.folder_of(task_id, attempt)
        order = Order(
            name=f"codespar-{task_id}-{attempt}-verify",
            job=Job.VERIFY,
            spec=spec,
            repository=self._tools.workshop(task.project).forge.base_repository,
            folder=folder.with_name(f"{attempt}-verify"),
            patch=folder / "out" / "changes.patch",
        )
        run = await self._supervisor.verify(self._tools.sandbox, order)
        if (await self._tools.task(task_id)).cancel_requested_by:
            return cancelled(await self._tools.task(task_id), str(folder / "out" / "changes.patch"))
        return {"tests": run.wire()}

    async def publish(
        self, task_id: str, document: dict[str, Any], harvested: Answer, verified: Answer
    ) -> Answer:
        await self._supervisor.tell(task_id, "opening the pull request")
        task, spec = await self._tools.task(task_id), TaskSpec.model_validate(document)
        forge = self._tools.workshop(task.project).forge
        now = self._tools.clock()
        tests = TestRun.model_validate(verified["tests"]) if verified["tests"] else None
        branch, commit, title = str(harvested["branch"]), str(harvested["commit"]), str(harvested["title"])
        await forge.push(branch=branch, commit=commit)
        result = TaskResult(
            status=TaskStatus.COMPLETED,
            tests=tests,
            cost_micros=task.cost_micros,
            tokens=task.tokens,
            turns=task.turns,
        )
        pull = await forge.open_pull(
            branch=branch,
            commit=commit,
            base_branch=spec.base_branch,
            base_commit=spec.base_commit,
            title=title,
            body=self._pull_body(task, spec, str(harvested["summary"]), result),
            author=task.requester,
            at=now,
        )
        if tests is not None:
            check = Check(name="tests", passed=tests.passed, summary=cards.tests(result), at=now)
            await forge.set_check(pull.number, check)
        conflicts = await forge.conflicts(pull.number)
        await self._tell_conflicts(
            task, branch, [(item.number, item.other, item.paths) for item in conflicts]
        )
        done = result.evolve(
            summary=str(harvested["summary"])[:4000],
            branch=branch,
            commit=commit,
            pr_number=pull.number,
            pr_title=title,
            files_changed=len(pull.files),
            additions=pull.additions,
            deletions=pull.deletions,
            isolation=task.isolation,
        )
        return {"result": done.wire()}

    def _pull_body(self, task: Task, spec: TaskSpec, summary: str, result: TaskResult) -> str:
        limits = spec.limits
        used = f"{limits.memory_bytes // 1024**2} MiB memory, {limits.cpus:g} CPUs, {limits.tmp_bytes // 1024**2} MiB of /tmp, no network"
        said = harmless(summary.strip()) if _read_a_stranger(task) else summary.strip()
        lines = [
            said[:8000],
            "",
            "---",
            f"- Instruction: {task.instruction.strip()}",
            f"- Asked by {task.requester}; made by {task.id} on `{spec.base_commit[:12]}` of `{spec.base_branch}`",
            f"- Tests: {cards.tests(result)}",
            f"- Cost: {money(result.cost_micros)}, {result.tokens} tokens, {result.turns} turns ({spec.model})",
            f"- Isolation: {used}",
            *closes(task),
        ]
        return "\n".join(lines)

    async def _tell_conflicts(
        self, task: Task, branch: str, found: list[tuple[int, int, tuple[str, ...]]]
    ) -> None:
        now = self._tools.clock()

        def tell(unit: Any) -> None:
            for number, other, paths in found:
                card = cards.conflict(number, other, paths)
                key = f"{task.project}:conflict:{number}:{other}"
                unit.say(task.project, task.thread, key, card, now)
                for owner in unit.tasks(task.project, limit=500):
                    if (
                        owner.result
                        and owner.result.pr_number == other
                        and owner.thread.key != task.thread.key
                    ):
                        unit.say(task.project, owner.thread, f"{key}:other", card, now)

        if found:
            await self._tools.store.write(tell)


def closes(task: Task) -> list[str]:
    """The line by which a code host closes the issue that the task was to fix, where the instruction begins with it."""
    number = mended(task.instruction) if task.kind is TaskKind.FIX else None
    return ["", f"Closes #{number}"] if number is not None else []


def _read_a_stranger(task: Task) -> bool:
    """Whether its agent read words of people who may do nothing here, and may repeat them."""
    return task.issue is not None and not task.issue.unread


def commit_message(task: Task, title: str) -> str:
    """The title, what was asked for, and the trailers. `title` is one line, and nothing else in it is by others."""
    return f"{title}\n\n{task.instruction.strip()}\n\nTask: {task.id}\nRequested-by: {task.requester}\n"


def slug(text: str) -> str:
    """A few words of the instruction for a branch name: lower case ASCII letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "task"


def pull_title(summary: str, task: Task) -> str:
    """The agent's own Conventional Commits title where it gave one, else one made from the instruction, or from the title of the issue that it names."""
    for line in summary.splitlines()[:5]:
        candidate = line.strip().strip("`*# ")
        if _TITLE.match(candidate):
            return (plain_title(candidate) if _read_a_stranger(task) else candidate)[:100]
    if task.issue is not None and task.issue.title and alone(task.instruction):
        return f"Fix #{task.issue.number}: {plain_title(task.issue.title)}"[:100].rstrip(" :")
    words = " ".join(task.instruction.split())
    kind = "fix" if task.kind in (TaskKind.FIX, TaskKind.INCIDENT_FIX) else "feat"
    if re.match(r"(write|add)\b.*\btests?\b", words, re.IGNORECASE):
        kind = "test"
    elif re.match(r"(update|write|fix|improve)\b.*\b(docs?|documentation|readme)\b", words, re.IGNORECASE):
        kind = "docs"
    return f"{kind}: {words[:1].lower()}{words[1:80]}"
