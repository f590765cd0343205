"""The port to durable execution: workflows made of steps, waits and messages.

A workflow is an async function of (context, payload). It is started under an id, once; killed at any moment it goes on from its
last finished step. Everything with an effect or a random outcome happens inside `step`; a step runs at least once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from pydantic import JsonValue

Json = JsonValue


class WorkflowContext(Protocol):
    @property
    def id(self) -> str: ...

    async def step(self, name: str, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run `function` and keep its JSON-able answer; on a replay the kept answer is returned instead."""
        ...

    async def wait(self, topic: str, seconds: float) -> Any:
        """The next message sent to this workflow under `topic`, or None after `seconds`. Survives restarts."""
        ...

    async def sleep(self, seconds: float) -> None: ...


Workflow = Callable[[WorkflowContext, dict[str, Any]], Awaitable[Any]]


class Engine(Protocol):
    def register(self, name: str, workflow: Workflow) -> None:
        """Make a workflow known. Before `start_engine`, under a name that never changes."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def start(self, workflow: str, id: str, payload: dict[str, Any]) -> None:
        """Start it under `id`; nothing happens when that id was started before."""
        ...

    async def send(self, id: str, topic: str, message: Any, key: str) -> None:
        """Send to a workflow; a second send under the same `key` changes nothing."""
        ...
