"""The units of the settings as people write them: sizes (`2g`), durations (`5m`), money (`$5`), autonomy levels (`L3`).

A value that is not understood is refused with an example; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from codespar.domain.tasks import MICROS

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt])(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_MONEY = re.compile(r"\$?\s*([0-9]{1,9}(?:\.[0-9]{1,6})?)")
_BYTES = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LARGEST = 10**15  # what any unit is reckoned with
_MOST_SIZE, _MOST_SECONDS, _MOST_MONEY = 1024**5, 3650 * 86400, 1_000_000


def size(value: Any) -> int:
    """Bytes: `512m`, `2g`, `1.5GiB`, or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        return round(float(found[1]) * _BYTES[found[2].lower()])
    raise ValueError("must be a size such as `512m` or `2g`, or a whole number of bytes")


def duration(value: Any) -> float:
    """Seconds: `90s`, `5m`, `1h`, or a number of seconds."""
    if _number(value):
        return float(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return float(found[1]) * _SECONDS[found[2].lower()]
    raise ValueError("must be a duration such as `90s`, `5m` or `1h`, or a number of seconds")


def money(value: Any) -> int:
    """Micro-dollars: `$5`, `$0.50`, or a number of dollars."""
    if _number(value):
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


def _number(value: Any) -> bool:
    """A number that can be reckoned with: no infinity, and none so large that a conversion overflows."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _within(
    convert: Callable[[Any], Any], least: float, most: float, told: tuple[str, str]
) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        converted = convert(value)
        if converted < least:
            raise ValueError(f"must be at least {told[0]}")
        if converted > most:
            raise ValueError(f"must be at most {told[1]}")
        return converted

    return check


def _schema(kind: str, pattern: str, example: str, least: float, most: float) -> WithJsonSchema:
    number = {"type": kind, "minimum": least, "maximum": most}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}], "examples": [example]})


_SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,6})?\s*[kmgtKMGT]([iI]?[bB])?$"
_DURATION_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,6})?\s*([mM][sS]|[sSmMhHdD])$"
_MONEY_PATTERN = r"^\$?\s*[0-9]{1,9}(\.[0-9]{1,6})?$"


def _size(least: int, told: str, example: str) -> tuple[BeforeValidator, WithJsonSchema]:
    within = _within(size, least, _MOST_SIZE, (told, "1024t"))
    return BeforeValidator(within), _schema("integer", _SIZE_PATTERN, example, least, _MOST_SIZE)


Memory = Annotated[int, *_size(64 * 1024**2, "64m", "2g")]
Tmp = Annotated[int, *_size(16 * 1024**2, "16m", "512m")]
Output = Annotated[int, *_size(1024, "1k", "64m")]
Duration = Annotated[
    float,
    BeforeValidator(_within(duration, 1, _MOST_SECONDS, ("1s", "3650d"))),
    _schema("number", _DURATION_PATTERN, "30m", 1, _MOST_SECONDS),
]
Money = Annotated[
    int,
    BeforeValidator(_within(money, 0, _MOST_MONEY * MICROS, ("$0", f"${_MOST_MONEY}"))),
    _schema("number", _MONEY_PATTERN, "$5", 0, _MOST_MONEY),
]
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
