"""The hidden line by which what we wrote at GitHub is known again."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from codespar.forges.github.marks import LONGEST, is_marked, mark, mark_of, marked, with_mark


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_key_makes_one_html_comment_of_its_own(key: str, other: str) -> None:
    line = mark(key)
    assert re.fullmatch(r"<!-- codespar:(?:(?!--).)+ -->", line)
    assert (mark(other) == line) == (other == key)


@given(st.text(max_size=300), st.text(min_size=1, max_size=60))
def test_a_marked_text_is_known_by_its_key_alone(body: str, key: str) -> None:
    text = marked(body, key)
    assert is_marked(text, key)
    assert is_marked(text + "\r\n", key)
    assert not is_marked(text, key + "x")
    assert not is_marked(f"> {text}\n\nquoted by somebody", key)
    assert mark_of(with_mark("edited", mark_of(text))) == mark(key)


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    text = marked("x" * LONGEST, "review-abc123:1")
    assert len(text) == LONGEST
    assert "cut" in text
    assert is_marked(text, "review-abc123:1")
    assert mark("review-abc123:1") == "<!-- codespar:review-abc123:1 -->"
    assert mark_of("nothing") == mark_of(None) == ""
