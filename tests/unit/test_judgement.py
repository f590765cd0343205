"""What the refuting pass reads of a file: its lines, numbered as the diff numbers them."""

from __future__ import annotations

import pytest

from codespar.agents.judgement import numbered_code
from codespar.domain.reviews import Category, Finding, Severity

FOUND = Finding(
    source="model:security",
    path="a.py",
    start_line=3,
    end_line=3,
    severity=Severity.HIGH,
    category=Category.SECURITY,
    title="Anybody is let in",
)


@pytest.mark.parametrize("odd", ["\f", "\r", "\v", "\x1c", "\x85", "\u2028"])
def test_nothing_but_a_line_feed_moves_a_line_away_from_its_number(odd: str) -> None:
    code = numbered_code(f"# {odd * 5}\n\nlet_in()\n", FOUND, 1_000)
    assert code.split("\n")[2] == "     3 let_in()" and len(code.split("\n")) == 3


def test_a_carriage_return_before_it_belongs_to_a_lines_end() -> None:
    assert numbered_code("a\r\n\r\nb\r\n", FOUND, 1_000) == "     1 a\n     2 \n     3 b"
