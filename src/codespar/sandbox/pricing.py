"""What a model's answer costs, in micro-dollars, and until when a model can be asked.

The vendor's list prices in dollars per million tokens, as of 21 November 2026 (platform.claude.com/docs/en/about-claude/pricing). Claude
Haiku 5.5 has two bands: a request whose prompt is longer than 100,000 tokens, those read from and written to the cache among them, pays the
higher one for all its tokens, the answer's too. Discounts (batches) and surcharges (fast mode, a region of one's choice) are not counted:
nothing of ours asks for them. A model that is not in the table is counted at the dearest of it, so that a budget is never overrun by a
name this table does not know; so is the next generation of one that is.

The dates of retirement, as of the same day (platform.claude.com/docs/en/about-claude/model-deprecations), are those of the vendor's own
service; other platforms that offer its models have their own. What is only said to go on until some day is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

# Models are matched by the longest of these names that theirs begins with, and after which no further number of a generation comes.
_END = r"(?![-.]?\d{1,2}(?!\d)|\w)"
_OURS = re.compile(
    r"(?:^|[/.:])(?=claude-)"
)  # behind the prefix of a platform: `anthropic/`, `us.anthropic.`


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, which is micro-dollars a token."""

    input: float
    output: float
    write_5m: float  # into the prompt cache, for 5 minutes
    write_1h: float
    read: float  # from the prompt cache


PRICES = {
    "claude-fable-5-2": Price(8, 40, 10, 16, 0.20),
    "claude-mythos-5-2": Price(8, 40, 10, 16, 0.20),
    "claude-fable-5-1": Price(10, 50, 12.50, 20, 0.25),
    "claude-mythos-5-1": Price(10, 50, 12.50, 20, 0.25),
    "claude-fable-5": Price(10, 50, 12.50, 20, 1.00),
    "claude-mythos-5": Price(10, 50, 12.50, 20, 1.00),
    "claude-opus-5-5": Price(4, 20, 5, 8, 0.20),
    "claude-opus-5": Price(5, 25, 6.25, 10, 0.50),
    "claude-opus-4-8": Price(5, 25, 6.25, 10, 0.50),
    "claude-opus-4-7": Price(5, 25, 6.25, 10, 0.50),
    "claude-opus-4-6": Price(5, 25, 6.25, 10, 0.50),
    "claude-opus-4-5": Price(5, 25, 6.25, 10, 0.50),
    "claude-opus-4-1": Price(15, 75, 18.75, 30, 1.50),
    "claude-opus-4-0": Price(15, 75, 18.75, 30, 1.50),
    "claude-opus-4": Price(15, 75, 18.75, 30, 1.50),
    "claude-sonnet-5-5": Price(2, 10, 2.50, 4, 0.10),
    "claude-sonnet-5": Price(2, 10, 2.50, 4, 0.20),
    "claude-sonnet-4-6": Price(3, 15, 3.75, 6, 0.30),
    "claude-sonnet-4-5": Price(3, 15, 3.75, 6, 0.30),
    "claude-sonnet-4-0": Price(3, 15, 3.75, 6, 0.30),
    "claude-sonnet-4": Price(3, 15, 3.75, 6, 0.30),
    "claude-haiku-5-5": Price(0.10, 0.50, 0.125, 0.20, 0.01),
    "claude-haiku-4-5": Price(1, 5, 1.25, 2, 0.10),
}
LONG_PROMPTS = {"claude-haiku-5-5": (100_000, Price(0.50, 2.50, 0.625, 1, 0.05))}
DEAREST = max(PRICES.values(), key=lambda price: price.output)


@dataclass(frozen=True)
class Retirement:
    """From `day` on the vendor answers with an error; `instead` is the present model of the same kind."""

    day: date
    instead: str


_SONNET, _OPUS, _HAIKU = "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"
RETIREMENTS = {
    "claude-sonnet-4-5": Retirement(date(2026, 11, 30), _SONNET),
    "claude-opus-4-1": Retirement(date(2026, 8, 5), _OPUS),
    "claude-opus-4-0": Retirement(date(2026, 6, 15), _OPUS),
    "claude-opus-4": Retirement(date(2026, 6, 15), _OPUS),
    "claude-sonnet-4-0": Retirement(date(2026, 6, 15), _SONNET),
    "claude-sonnet-4": Retirement(date(2026, 6, 15), _SONNET),
    "claude-3-7-sonnet": Retirement(date(2026, 2, 19), _SONNET),
    "claude-3-5-haiku": Retirement(date(2026, 2, 19), _HAIKU),
    "claude-3-haiku": Retirement(date(2026, 4, 19), _HAIKU),
    "claude-3-opus": Retirement(date(2026, 1, 5), _OPUS),
    "claude-3-5-sonnet": Retirement(date(2025, 10, 28), _SONNET),
    "claude-3-sonnet": Retirement(date(2025, 7, 21), _SONNET),
}


def cost_micros(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
    cache_write_1h_tokens: int = 0,
) -> int:
    """Micro-dollars of one request. `cache_write_tokens` are all that were written to the prompt cache, `cache_write_1h_tokens` those of them
    that are kept for an hour and not for 5 minutes.
    """
    name = _known(model, PRICES)
    price = PRICES.get(name, DEAREST)
    if name in LONG_PROMPTS:
        most, dearer = LONG_PROMPTS[name]
        price = dearer if input_tokens + cache_read_tokens + cache_write_tokens > most else price
    for_an_hour = min(cache_write_1h_tokens, cache_write_tokens)
    return round(
        price.input * input_tokens
        + price.output * output_tokens
        + price.read * cache_read_tokens
        + price.write_5m * (cache_write_tokens - for_an_hour)
        + price.write_1h * for_an_hour
    )


def retirement(model: str) -> Retirement | None:
    """When the vendor's own service retires a model; None where that is not known, and for names of other platforms."""
    name = model.lower().removeprefix("anthropic/")
    return RETIREMENTS.get(_known(name, RETIREMENTS)) if re.fullmatch(r"claude-[^/:@]+", name) else None


def _known(model: str, table: Mapping[str, object]) -> str:
    """The table's name for a model, whatever date, variant or platform its own name carries; empty when it has none."""
    found = _OURS.search(model.lower())
    name = "" if found is None else model.lower()[found.end() :]
    name = re.sub(r"(?<=\d)\.(?=\d)", "-", name)  # as other platforms write it: `claude-sonnet-4.5`
    return max((one for one in table if re.match(re.escape(one) + _END, name)), key=len, default="")
