"""Base scores of CVSS 3 vectors, against published ones."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.domain.reviews import Severity
from codespar.signals.cvss import base_score, severity_of

PUBLISHED = {
    "AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 9.8,
    "AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H": 10.0,
    "AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N": 6.1,
    "AV:N/AC:L/PR:L/UI:R/S:C/C:L/I:L/A:N": 5.4,
    "AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N": 6.4,
    "AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H": 7.8,
    "AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N": 3.1,
    "AV:A/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 8.8,
    "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H": 7.5,
    "AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 6.8,
    "AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:N": 7.4,
    "AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N": 0.0,
}


@pytest.mark.parametrize("version", ["3.0", "3.1"])
@pytest.mark.parametrize("vector", PUBLISHED)
def test_a_vector_has_its_published_score(vector: str, version: str) -> None:
    assert base_score(f"CVSS:{version}/{vector}") == PUBLISHED[vector]
    assert base_score(f"CVSS:{version}/{vector}/E:P/RL:O/RC:C") == PUBLISHED[vector], "the base score alone"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N",
        "AV:N/AC:L/Au:N/C:P/I:P/A:P",
        "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H",
        "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
        "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:X/C:H/I:H/A:H",
        "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
        "9.8",
    ],
)
def test_what_is_no_vector_of_version_3_has_no_score(text: str) -> None:
    assert base_score(text) is None


def test_every_vector_has_a_score_of_one_decimal_within_bounds() -> None:
    for av, ac, pr, ui, s, c, i, a in itertools.product("NALP", "LH", "NLH", "NR", "UC", "HLN", "HLN", "HLN"):
        score = base_score(f"CVSS:3.1/AV:{av}/AC:{ac}/PR:{pr}/UI:{ui}/S:{s}/C:{c}/I:{i}/A:{a}")
        assert score is not None and 0 <= score <= 10 and score == round(score, 1)
        assert (score == 0) is (c == i == a == "N")


def test_scores_have_the_words_of_the_specification() -> None:
    told = {score: severity_of(score) for score in (0.0, 0.1, 3.9, 4.0, 6.9, 7.0, 8.9, 9.0, 10.0)}
    assert list(told.values()) == [
        Severity.INFO,
        *[Severity.LOW] * 2,
        *[Severity.MEDIUM] * 2,
        *[Severity.HIGH] * 2,
        *[Severity.CRITICAL] * 2,
    ]


@given(st.text(max_size=80))
def test_any_text_is_taken(text: str) -> None:
    assert base_score(text) is None
