"""How long the server keeps what is of no use any more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from codespar.config.units import duration
from codespar.domain.settings import Section

NEVER = "never"
_DAY, _MOST = 86400.0, 3650 * 86400.0


def _age(least: float) -> tuple[BeforeValidator, WithJsonSchema]:
    """A time in seconds after which something is removed, at least `least`, or `never`."""

    def seconds_of(value: Any) -> float | str:
        if value == NEVER:
            return NEVER
        try:
            seconds = duration(value)
        except ValueError:
            raise ValueError("must be a time such as `14d`, or `never`") from None
        if not least <= seconds <= _MOST:
            raise ValueError(f"must be at least {least / _DAY:.0f}d and at most 3650d, or `never`")
        return seconds

    schema = {
        "anyOf": [
            {"type": "number", "minimum": least, "maximum": _MOST},
            {
                "type": "string",
                "pattern": r"^([0-9]{1,15}(\.[0-9]{1,6})?\s*([mM][sS]|[sSmMhHdD])|never)$",
            },
        ],
        "examples": ["14d" if least <= 14 * _DAY else "90d", NEVER],
    }
    return BeforeValidator(seconds_of), WithJsonSchema(schema)


Age = Annotated[float | Literal["never"], *_age(_DAY)]
LongAge = Annotated[float | Literal["never"], *_age(30 * _DAY)]
"""At least 30 days: no platform sends a message again after so long."""


class HousekeepingSettings(Section):
    """What is removed at start and once a day. Nothing that a container, an open task or a pending approval needs ever is."""

    images: Age = Field(
        default=14 * _DAY,
        description="our container images are removed when nobody has used them for so long; `never` keeps them",
    )
    attachments: Age = Field(
        default=30 * _DAY,
        description="files that came with messages are removed so long after they came; `never` keeps them",
    )
    folders: Age = Field(
        default=14 * _DAY,
        description="the folders of tasks and reviews, with kept patches, are removed so long after their end; `never` keeps them",
    )
    messages: LongAge = Field(
        default=90 * _DAY,
        description="messages and news that were dealt with, and told announcements, are removed from the store so long after they came,"
        " at least 30d; `never` keeps them",
    )
