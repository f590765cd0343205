"""The limits of a task as people write them, for an installation, a project or a repository."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from codespar.config.units import Duration, Memory, Money, Output, Tmp
from codespar.domain.settings import Section

LIMIT_FIELDS = {
    "cost": "cost_micros",
    "turns": "turns",
    "wall": "wall_seconds",
    "stall": "stall_seconds",
    "memory": "memory_bytes",
    "cpus": "cpus",
    "tmp": "tmp_bytes",
    "output": "output_bytes",
}
"""How people write a limit, and the field of `Limits` it is."""


class LimitSettings(Section):
    """Limits of one task as people write them: `cost: $5`, `wall: 30m`, `memory: 2g`. What is left out keeps its default."""

    cost: Money | None = Field(
        default=None,
        description="US dollars for the model; at the limit the work is kept and its people asked",
    )
    turns: int | None = Field(
        default=None, ge=1, strict=True, description="model turns; at the limit its people are asked"
    )
    wall: Duration | None = Field(
        default=None, description="time from start to end; at the limit its people are asked"
    )
    stall: Duration | None = Field(
        default=None, description="time without any output after which a task counts as stalled"
    )
    memory: Memory | None = Field(default=None, description="memory of the container")
    cpus: float | None = Field(
        default=None, gt=0, le=1024, strict=True, description="processors of the container"
    )
    tmp: Tmp | None = Field(default=None, description="size of /tmp, which holds the work tree")
    output: Output | None = Field(default=None, description="all that may come out of the container")

    def given(self) -> dict[str, Any]:
        """The fields of `Limits` that are set here."""
        return {
            name: getattr(self, key) for key, name in LIMIT_FIELDS.items() if getattr(self, key) is not None
        }
