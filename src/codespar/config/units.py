"""The units of the settings as people write them: sizes (`2g`), durations (`5m`), money (`$5`), autonomy levels (`L3`).

A value that is not understood is refused with an example; nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from codespar.domain.tasks import MICROS

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_MONEY = re.compile(r"\$?\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_BYTES = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size(value: Any) -> int:
    """Bytes: `512m`, `2g`, `1.5GiB`, or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return round(float(found[1]) * _BYTES[found[2].lower()])
    raise ValueError("must be a size such as `512m` or `2g`, or a whole number of bytes")


def duration(value: Any) -> float:
    """Seconds: `90s`, `5m`, `1h`, or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _SECONDS[found[2].lower()]
    raise ValueError("must be a duration such as `90s`, `5m` or `1h`, or a number of seconds")


def money(value: Any) -> int:
    """Micro-dollars: `$5`, `$0.50`, or a number of dollars."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return round(value * MICROS)
    if isinstance(value, str) and (found := _MONEY.fullmatch(value.strip())):
        return round(float(found[1]) * MICROS)
    raise ValueError("must be an amount of US dollars such as `$5` or `5.00`")


def level(value: Any) -> int:
    """An autonomy level: `L3` or `3`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 5:
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"[lL]([0-5])", value.strip())):
        return int(found[1])
    raise ValueError("must be a level from 0 to 5 (or L0 to L5)")


def _at_least(convert: Callable[[Any], Any], least: float, told: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        converted = convert(value)
        if converted < least:
            raise ValueError(f"must be at least {told}")
        return converted

    return check


def _schema(kind: str, pattern: str, example: str, least: float = 0) -> WithJsonSchema:
    number = {"type": kind, "minimum": least}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}], "examples": [example]})


_SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*[kmgtKMGT]([iI]?[bB])?$"
_DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([mM][sS]|[sSmMhHdD])$"
_MONEY_PATTERN = r"^\$?\s*[0-9]{1,9}(\.[0-9]{1,6})?$"

Memory = Annotated[
    int,
    BeforeValidator(_at_least(size, 64 * 1024**2, "64m")),
    _schema("integer", _SIZE_PATTERN, "2g", 64 * 1024**2),
]
Tmp = Annotated[
    int,
    BeforeValidator(_at_least(size, 16 * 1024**2, "16m")),
    _schema("integer", _SIZE_PATTERN, "512m", 16 * 1024**2),
]
Output = Annotated[
    int, BeforeValidator(_at_least(size, 1024, "1k")), _schema("integer", _SIZE_PATTERN, "64m", 1024)
]
Duration = Annotated[
    float, BeforeValidator(_at_least(duration, 1, "1s")), _schema("number", _DURATION_PATTERN, "30m", 1)
]
Money = Annotated[int, BeforeValidator(_at_least(money, 0, "$0")), _schema("number", _MONEY_PATTERN, "$5")]
AutonomyLevel = Annotated[
    int,
    BeforeValidator(level),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 5},
                {"type": "string", "pattern": "^[lL][0-5]$"},
            ]
        }
    ),
]
