"""What an answer costs: the vendor's list by generation, whatever else a model's name carries; and when a model goes out of service."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.sandbox.pricing import DEAREST, LONG_PROMPTS, PRICES, RETIREMENTS, cost_micros, retirement

MILLION, DOLLAR = 10**6, 10**6


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("claude-sonnet-5-5", 12),
        ("claude-sonnet-5-5-20260928", 12),
        ("claude-sonnet-4-5", 18),
        ("claude-sonnet-4-5-20250929", 18),
        ("claude-sonnet-4-20250514", 18),
        ("claude-opus-5-5", 24),
        ("claude-opus-5", 30),
        ("claude-opus-4-1", 90),
        ("claude-haiku-4-5", 6),
        ("Claude-Haiku-4-5", 6),
        ("claude-fable-5-2", 48),
        ("anthropic/claude-sonnet-5.5", 12),
        ("openrouter/anthropic/claude-opus-5.5:thinking", 24),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 18),
        ("claude-sonnet-4-5@20250929", 18),
        ("claude-opus-5[1m]", 30),
        ("claude-opus-5-latest", 30),
    ],
)
def test_a_million_tokens_in_and_out_cost_the_list_price_of_the_generation(model: str, dollars: int) -> None:
    assert cost_micros(model, input_tokens=MILLION, output_tokens=MILLION) == dollars * DOLLAR


@pytest.mark.parametrize(
    "model",
    [
        *(
            "some-model-of-tomorrow",
            "claude-haiku",
            "claude-sonnet-6",
            "claude-sonnet-5-7",
            "claude-opus-4.9",
        ),
        *(
            "claude-sonnet-50",
            "claude-haiku-5-5-5",
            "claude-sonnet-5x",
            "my-claude-haiku-4-5",
            "gpt-5-mini",
            "",
        ),
    ],
)
def test_a_model_that_is_not_in_the_table_costs_what_the_dearest_does(model: str) -> None:
    assert cost_micros(model, input_tokens=MILLION, output_tokens=MILLION) == 90 * DOLLAR


@pytest.mark.parametrize(
    ("kind", "dollars"),
    [
        ({"cache_write_tokens": MILLION}, 2.50),
        ({"cache_write_tokens": MILLION, "cache_write_1h_tokens": MILLION}, 4),
        ({"cache_write_tokens": MILLION, "cache_write_1h_tokens": MILLION // 2}, 3.25),
        ({"cache_read_tokens": MILLION}, 0.10),
    ],
)
def test_the_prompt_cache_has_its_own_prices_by_how_long_it_keeps(
    kind: dict[str, int], dollars: float
) -> None:
    assert cost_micros("claude-sonnet-5-5", input_tokens=0, output_tokens=0, **kind) == dollars * DOLLAR


def test_a_prompt_above_the_line_makes_every_token_of_its_request_dearer() -> None:
    haiku = "claude-haiku-5-5"
    assert cost_micros(haiku, input_tokens=100_000, output_tokens=10_000) == 10_000 + 5_000
    assert cost_micros(haiku, input_tokens=100_001, output_tokens=10_000) == 50_000 + 25_000  # rounded
    assert cost_micros(haiku, input_tokens=1, output_tokens=200_000) == 100_000, "an answer is no prompt"
    cached = {"cache_read_tokens": 60_000, "cache_write_tokens": 40_000, "cache_write_1h_tokens": 10_000}
    within = 600 + 30_000 * 0.125 + 10_000 * 0.20
    assert cost_micros(haiku, input_tokens=0, output_tokens=0, **cached) == round(within)
    above = 0.5 + 3_000 + 30_000 * 0.625 + 10_000
    assert cost_micros(haiku, input_tokens=1, output_tokens=0, **cached) == round(above)


@given(
    st.sampled_from([*PRICES, "another"]),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
)
def test_nothing_costs_more_than_the_dearest_and_nothing_less_than_nothing(
    model: str, new: int, out: int, read: int, written: int, for_an_hour: int
) -> None:
    counts = {"cache_read_tokens": read, "cache_write_tokens": written, "cache_write_1h_tokens": for_an_hour}
    cost = cost_micros(model, input_tokens=new, output_tokens=out, **counts)
    assert 0 <= cost <= cost_micros("unknown", input_tokens=new, output_tokens=out, **counts)


def test_every_price_stands_to_the_others_as_the_vendor_says() -> None:
    """Writing costs 1.25 and 2 times what reading anew does, by the vendor's page on the prompt cache; so a slip in the table shows."""
    for name, price in (*PRICES.items(), *((name, dearer) for name, (_, dearer) in LONG_PROMPTS.items())):
        assert (price.write_5m, price.write_1h) == pytest.approx((1.25 * price.input, 2 * price.input)), name
        assert price.output == pytest.approx(5 * price.input) and price.read <= 0.1001 * price.input, name
    assert all(
        getattr(DEAREST, kind) >= getattr(price, kind) for price in PRICES.values() for kind in vars(price)
    )


@pytest.mark.parametrize(
    "name", ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4.5"]
)
def test_a_model_that_is_to_be_retired_is_known_by_each_of_the_vendor_s_names_for_it(name: str) -> None:
    found = retirement(name)
    assert found is not None and (found.day, found.instead) == (date(2026, 11, 30), "claude-sonnet-5-5")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "claude-sonnet-5-5",
            "claude-sonnet-4-6",
            "claude-haiku-4-5",
            "claude-sonnet-4-7",
            "gpt-5-mini",
            "",
        ),
        *(
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-sonnet-4-5@20250929",
            "my/claude-sonnet-4-5",
        ),
    ],
)
def test_nothing_is_said_of_other_models_and_of_other_platforms(name: str) -> None:
    assert retirement(name) is None


def test_what_is_to_be_set_instead_has_a_price_and_no_retirement() -> None:
    for one in RETIREMENTS.values():
        assert one.instead in PRICES and retirement(one.instead) is None
