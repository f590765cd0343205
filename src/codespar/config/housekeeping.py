"""How long the server keeps what is of no use any more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from codespar.config.units import duration
from codespar.domain.settings import Section

NEVER = "never"
_DAY, _MOST = 86400.0, 3650 * 86400.0


def _age(value: Any) -> float | str:
    if value == NEVER:
        return NEVER
    try:
        seconds = duration(value)
    except ValueError:
        raise ValueError("must be a time such as `14d`, or `never`") from None
    if not _DAY <= seconds <= _MOST:
        raise ValueError("must be at least 1d and at most 3650d, or `never`")
    return seconds


Age = Annotated[
    float | Literal["never"],
    BeforeValidator(_age),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": _DAY, "maximum": _MOST},
                {
                    "type": "string",
                    "pattern": r"^([0-9]{1,15}(\.[0-9]{1,6})?\s*([mM][sS]|[sSmMhHdD])|never)$",
                },
            ],
            "examples": ["14d", NEVER],
        }
    ),
]
"""A time in seconds after which something is removed, at least a day, or `never`."""


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
