"""What a model's answer costs, in micro-dollars.

Anthropic's public list prices in dollars per million tokens (platform.claude.com, November 2026): Opus 5 in / 25 out, Sonnet 3 / 15,
Haiku 1 / 5; writing to the prompt cache costs 1.25 times the input price, reading from it a tenth. An unknown model is counted at the
dearest row, so that a budget is never overrun by a name this table does not know.
"""

from __future__ import annotations

PRICES = {"opus": (5.0, 25.0), "sonnet": (3.0, 15.0), "haiku": (1.0, 5.0)}
CACHE_WRITE, CACHE_READ = 1.25, 0.1


def cost_micros(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
) -> int:
    """Micro-dollars. A dollar per million tokens is one micro-dollar per token."""
    family = next((name for name in PRICES if name in model.lower()), "opus")
    into, out = PRICES[family]
    total = (
        into * (input_tokens + CACHE_WRITE * cache_write_tokens + CACHE_READ * cache_read_tokens)
        + out * output_tokens
    )
    return round(total)
