"""The `Reviewer` port on pydantic-ai: one call for each concern, one for each finding to be refuted.

All calls about one change begin with the same text, which ends in a cache point: the service reads the change once and finds it in its
cache after that. For this both tools by which the model may answer are offered in every call, and the first call about a long change is
waited for before others follow.

Nothing that the model says decides anything: it gives findings, which code checks, and judgements on findings, which count against them
only with a reason. It has no tool but its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from codespar.domain.reviews import Finding
from codespar.models.base import Brief, Concern, ModelUse, Opinion, Refutation
from codespar.models.calls import CALLS, ModelCalls
from codespar.models.reviewanswers import Judgement, Report, findings_of, refutation_of, summary_of
from codespar.models.reviewprompts import (
    JUDGE,
    MAX_SHARED,
    REPORT,
    Shared,
    boundary_of,
    refute_task,
    review_task,
    shared,
)

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model
    from pydantic_ai.usage import RunUsage

    from codespar.config import ModelSettings

log = structlog.get_logger(__name__)
SECONDS = 240.0  # for one pass, however many calls it takes: present models think before they answer
AT_ONCE = 2  # calls to the model at the same time
BUDGET = 2_000_000  # micro-dollars for all calls about one change
MAX_ANSWER = 16_000  # tokens, those in which a model thinks among them
LONG = 40_000  # characters from which on a change is worth waiting for its cache entry
REMEMBERED = 256  # changes whose spending is kept in mind
RENEWED = (
    3600.0  # seconds after which a change has its budget again, for when its review is asked for once more
)
CACHED = 300.0  # seconds that the service keeps what it has read, from its last use
INSTEAD = "ask for the review again (`review #<n>`)"
Asked = type[Report] | type[Judgement]
Said = Report | Judgement


@dataclass
class _Account:
    """What was spent on one change, and when the service last read it."""

    since: float
    spent: int = 0  # micro-dollars
    read: float | None = None
    first: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class _Answer:
    said: Said | None  # None: nothing that could be used
    trouble: str  # why it is not, or not all, to be used
    use: ModelUse | None


class ModelReviewer:
    """Asks the model that `settings.review` names. `on_use` hears what each pass used, also where it failed.

    `budget_micros` is for all passes over one change (one `Brief`) within an hour, in micro-dollars; None: no limit. A model whose price is
    not known spends nothing of it. `secret` makes the boundaries of the data; left out, it is drawn for this process. `clock` counts seconds.
    Raises `ModelNotSet` for a setting that names no model. A missing key is told when the model is to be asked.
    """

    def __init__(
        self,
        settings: ModelSettings,
        environment: Mapping[str, str],
        *,
        on_use: Callable[[ModelUse], None] = lambda use: None,
        budget_micros: int | None = BUDGET,
        seconds: float = SECONDS,
        at_once: int = AT_ONCE,
        characters: int = MAX_SHARED,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = ModelCalls(
            settings, environment, "review", _agent, seconds=seconds, instead=INSTEAD, on_use=on_use
        )
        self._budget = budget_micros
        self._slots = asyncio.Semaphore(at_once)
        self._characters = characters
        self._secret = os.urandom(32) if secret is None else secret
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @property
    def model(self) -> str:
        return self._calls.model

    def remaining(self, brief: Brief) -> int | None:
        """Micro-dollars that are left for this change, never below 0; None without a limit."""
        if self._budget is None:
            return None
        return max(0, self._budget - self._account(boundary_of(brief, self._secret)).spent)

    async def review(self, brief: Brief, concern: Concern, most: int) -> Opinion:
        """One pass over the change. What the model says amiss (refuses, runs out of its limit, answers in no form) is told in `cut_short`."""
        if not brief.diff.strip():
            return Opinion(concern=concern, cut_short="the change has no text that a model could read")
        change = await asyncio.to_thread(shared, brief, self._secret, self._characters)
        answer = await self._ask(change, review_task(concern, most), Report)
        if not isinstance(answer.said, Report):
            return Opinion(concern=concern, cut_short=_joined(change.cut, answer.trouble), use=answer.use)
        findings, left_out = findings_of(answer.said, brief, concern, most)
        return Opinion(
            concern=concern,
            findings=findings,
            summary=summary_of(answer.said) if concern is Concern.CORRECTNESS else "",
            cut_short=_joined(change.cut, answer.trouble, left_out),
            use=answer.use,
        )

    async def refute(self, brief: Brief, finding: Finding, code: str) -> Refutation:
        """Whether the finding can be shown to be wrong. Where the model gives no clear answer it stands, and `why` says so."""
        change = await asyncio.to_thread(shared, brief, self._secret, self._characters)
        answer = await self._ask(change, refute_task(finding, code, change.boundary), Judgement)
        if answer.trouble or not isinstance(answer.said, Judgement):
            why = f"it was not shown to be wrong: {answer.trouble}"
            return Refutation(refuted=False, why=why, use=answer.use)
        return refutation_of(answer.said).evolve(use=answer.use)

    async def close(self) -> None:
        await self._calls.close()

    async def _ask(self, change: Shared, task: str, form: Asked) -> _Answer:
        """Ask within the limits of time, money and calls at once. Raises a `ModelError` for what the service did."""
        account = self._account(change.boundary)
        if (spent := self._used_up(account)) is not None:
            return spent
        self._calls.check()
        agent = await self._calls.ready()
        async with self._turn(account, len(change.data)):
            if (spent := self._used_up(account)) is not None:
                return spent  # by those that were before it
            return await self._said(agent, change, task, form, account)

    async def _said(
        self, agent: Agent[Asked, Said], change: Shared, task: str, form: Asked, account: _Account
    ) -> _Answer:
        from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded

        uses: list[ModelUse] = []
        messages: list[ModelMessage] = []

        def heard(use: ModelUse) -> None:
            uses.append(use)
            account.spent += use.cost_micros or 0

        said: Said | None = None
        try:
            said = await self._calls.ask(
                lambda usage: _run(agent, change, task, form, usage, messages), heard
            )
        except (UnexpectedModelBehavior, UsageLimitExceeded) as error:
            log.info("review.no_answer", model=self.model, kind=type(error).__name__)
        account.read = self._clock()
        trouble = _trouble(self.model, messages, usable=said is not None)
        return _Answer(said, trouble, uses[0] if uses else None)

    def _account(self, boundary: str) -> _Account:
        now = self._clock()
        account = self._accounts.get(boundary)
        if account is None or now - account.since > RENEWED:
            account = self._accounts[boundary] = _Account(since=now)
        self._accounts.move_to_end(boundary)
        while len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)
        return account

    def _used_up(self, account: _Account) -> _Answer | None:
        if self._budget is None or account.spent < self._budget:
            return None
        return _Answer(None, f"the review's budget of ${self._budget / 1_000_000:.2f} is used up", None)

    @contextlib.asynccontextmanager
    async def _turn(self, account: _Account, length: int) -> AsyncGenerator[None]:
        """One of the calls at once. The first about a long change goes alone: the others find it in the service's cache."""
        async with contextlib.AsyncExitStack() as held:
            if length >= LONG and not self._is_cached(account):
                await held.enter_async_context(account.first)
                if self._is_cached(account):
                    await held.aclose()
            await held.enter_async_context(self._slots)
            yield

    def _is_cached(self, account: _Account) -> bool:
        return account.read is not None and self._clock() - account.read < CACHED


async def _run(
    agent: Agent[Asked, Said],
    change: Shared,
    task: str,
    form: Asked,
    usage: RunUsage,
    messages: list[ModelMessage],
) -> Said:
    """One run, which leaves what was said in `messages`, also where it fails."""
    from pydantic_ai import CachePoint, capture_run_messages
    from pydantic_ai.usage import UsageLimits

    with capture_run_messages() as captured:
        try:
            result = await agent.run(
                [change.data, CachePoint(), task],
                instructions=change.rules,
                deps=form,
                usage=usage,
                usage_limits=UsageLimits(request_limit=2 * CALLS),
            )
        finally:
            messages[:] = captured
    return result.output


def _agent(model: Model) -> Agent[Asked, Said]:
    """Both forms in every call, in one order: tools stand before all else in what the service caches."""
    from pydantic_ai import Agent, ModelRetry, RunContext, ToolOutput
    from pydantic_ai.settings import ModelSettings as CallSettings

    settings = CallSettings(max_tokens=MAX_ANSWER, max_retries=0)
    if model.system == "anthropic":
        settings["parallel_tool_calls"] = False  # some models of the other service refuse to be told
    outputs: Any = [
        ToolOutput(Report, name=REPORT, max_retries=CALLS - 1),
        ToolOutput(Judgement, name=JUDGE, max_retries=CALLS - 1),
    ]
    agent: Agent[Asked, Said] = Agent(
        model, deps_type=type, output_type=outputs, retries=CALLS - 1, model_settings=settings
    )

    @agent.output_validator
    def as_asked(context: RunContext[Asked], said: Said) -> Said:  # pyright: ignore[reportUnusedFunction]
        if not isinstance(said, context.deps):
            raise ModelRetry(f"The task asks for {REPORT if context.deps is Report else JUDGE}.")
        return said

    return agent


def _trouble(model: str, messages: list[ModelMessage], *, usable: bool) -> str:
    """Why an answer is not, or not all, to be used; by how the service says that it ended."""
    last = next((one for one in reversed(messages) if one.kind == "response"), None)
    ended = None if last is None else last.finish_reason
    if ended == "length":
        return f"the answer of {model} was cut off at {MAX_ANSWER:,} tokens"
    if ended == "content_filter":
        return f"{model} refused to review this"
    if not usable:
        return f"{model} gave no answer that could be used"
    if last is not None and sum(part.part_kind == "tool-call" for part in last.parts) > 1:
        return f"{model} answered more than once in one answer; only the first counts"
    return ""


def _joined(*told: str) -> str:
    return "; ".join(filter(None, told))
