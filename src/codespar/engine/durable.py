"""The durable runtime on DBOS: the one place that knows it.

DBOS records each finished step; a workflow that was killed is replayed up to there. Its own database is separate from ours. The application
version is pinned, since the default (a hash of the source) would strand waiting workflows at every edit; the executor id is stable, since one
server owns a data folder and recovers its own workflows at start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID, StepOptions

from codespar.engine.base import Workflow, WorkflowContext
from codespar.store.base import StoreUnavailable

log = structlog.get_logger(__name__)
FIRST, LONGEST = 0.5, 2.0  # seconds until a step is tried again whose database was away
APPLICATION_VERSION = (
    "codespar-1"  # changes only when workflows parked under the old one can no longer be replayed
)


class DurableContext:
    """A running workflow's hands: steps, waits, sleep.

    A step that raises is tried again for a quarter of a minute. While the store is away it is tried for as long as that lasts: a workflow that
    gave up could not even say so, and its task would run for ever.
    """

    def __init__(self, id: str) -> None:
        self._id = id

    @property
    def id(self) -> str:
        return self._id

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        options: StepOptions = {
            "name": name,
            "retries_allowed": True,
            "max_attempts": 6,
            "interval_seconds": 0.5,
            "backoff_rate": 2,
        }
        return await DBOS.run_step_async(options, _patiently, name, function, *arguments)

    async def wait(self, topic: str, seconds: float) -> Any:
        return await DBOS.recv_async(topic, timeout_seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        await DBOS.sleep_async(seconds)


class DurableEngine:
    """`Engine` on DBOS. One a process."""

    def __init__(self, database_url: str, *, executor: str = "solo") -> None:
        self._url = database_url
        self._executor = executor
        self._workflows: dict[str, Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]]] = {}
        self._pending: dict[str, Workflow] = {}

    def register(self, name: str, workflow: Workflow) -> None:
        self._pending[name] = workflow

    async def open(self) -> None:
        """Connect, and go on with every workflow that was under way when the last process ended."""
        config: DBOSConfig = {
            "name": "codespar",
            "system_database_url": self._url,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._executor,
            "log_level": "WARNING",
            "run_migrations": True,
            "notification_listener_polling_interval_sec": 1.0,
        }
        DBOS(config=config)
        for name, workflow in self._pending.items():
            self._workflows[name] = _decorate(name, workflow)
        DBOS.launch()

    async def close(self) -> None:
        """Stop at once. What was under way goes on from its last finished step at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=0)
        # It made its own thread pool the loop's default one and has shut that down; others close after us and need one.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="codespar"))

    async def start(self, workflow: str, id: str, payload: dict[str, Any]) -> None:
        with SetWorkflowID(id):
            await DBOS.start_workflow_async(self._workflows[workflow], id, payload)

    async def send(self, id: str, topic: str, message: Any, key: str) -> None:
        await DBOS.send_async(id, message, topic=topic, idempotency_key=key)


async def _patiently(name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    wait = FIRST
    while True:
        try:
            return await function(*arguments)
        except StoreUnavailable as error:
            log.warning("step.store_unavailable", step=name, error=str(error), again_in=wait)
        await asyncio.sleep(wait)
        wait = min(LONGEST, wait * 2)


def _decorate(name: str, workflow: Workflow) -> Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]]:
    @DBOS.workflow(name=name, max_recovery_attempts=None)
    async def run(id: str, payload: dict[str, Any]) -> Any:
        context: WorkflowContext = DurableContext(id)
        return await workflow(context, payload)

    return run
