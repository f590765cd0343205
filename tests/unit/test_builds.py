"""What is known of a branch's builds, whatever the order in which runs are told of, and what of it is news."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.builds import BuildNews, Conclusion, Run, Standing, absorb

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
GOOD, BAD = Conclusion.SUCCESS, Conclusion.FAILURE


def run(
    minute: int,
    conclusion: Conclusion | None = GOOD,
    *,
    commit: str | None = None,
    id: str | None = None,
    attempt: int = 1,
    ended: int | None = None,
) -> Run:
    """A run that began in a minute, of an id and commit of its own unless they are given."""
    return Run(
        id=id or f"run-{minute:03}",
        attempt=attempt,
        workflow="tests",
        branch="main",
        commit=commit or f"{minute:040x}",
        conclusion=conclusion,
        started_at=START + timedelta(minutes=minute),
        updated_at=START + timedelta(minutes=minute + 5 if ended is None else ended),
    )


def told(runs: Sequence[Run], *, same_commit_only: bool = False) -> tuple[Standing, list[BuildNews]]:
    """What is known after the runs were told of in this order, and the news of each."""
    standing, news, known = (
        Standing(branch="main", workflow="tests"),
        list[BuildNews](),
        dict[tuple[str, int], Run](),
    )
    for one in runs:
        known[one.id, one.attempt] = one
        others = [
            other
            for other in known.values()
            if other is not one and (not same_commit_only or other.commit == one.commit)
        ]
        standing, new = absorb(standing, one, others)
        news.append(new)
    return standing, news


def outline(standing: Standing) -> tuple[Run | None, Run | None, Run | None, frozenset[str]]:
    return standing.last, standing.green, standing.broken_by, frozenset(standing.flaky)


def test_a_branch_that_breaks_stays_broken_and_is_mended_is_told_of_once_each() -> None:
    runs = [run(1), run(2, BAD), run(3, BAD), run(4), run(5)]
    standing, news = told(runs)
    assert news == [
        BuildNews.NOTHING,
        BuildNews.BROKE,
        BuildNews.STILL_BROKEN,
        BuildNews.FIXED,
        BuildNews.NOTHING,
    ]
    assert (standing.last, standing.green, standing.broken_by) == (runs[4], runs[4], None)


def test_what_broke_it_is_the_first_bad_run_since_it_worked() -> None:
    runs = [run(1), run(2, BAD), run(3, BAD)]
    standing, _ = told(runs)
    assert (standing.green, standing.broken_by, standing.last) == (runs[0], runs[1], runs[2])


def test_a_first_run_that_fails_broke_it() -> None:
    standing, news = told([run(1, Conclusion.TIMED_OUT)])
    assert news == [BuildNews.BROKE] and standing.green is None


def test_the_same_run_told_of_again_is_no_news() -> None:
    runs = [run(1), run(2, BAD), run(3)]
    for place in range(len(runs)):
        standing, news = told([*runs[: place + 1], *runs[: place + 1]])
        assert set(news[place + 1 :]) == {BuildNews.NOTHING}
        assert standing == told(runs[: place + 1])[0]


@pytest.mark.parametrize(
    "conclusion",
    [None, *(one for one in Conclusion if not one.good and not one.bad)],
)
def test_a_run_that_did_not_say_whether_it_works_changes_nothing(conclusion: Conclusion | None) -> None:
    for before in ([], [run(1)], [run(1), run(2, BAD)]):
        standing, _ = told(before)
        assert absorb(standing, run(9, conclusion), before) == (standing, BuildNews.NOTHING)


def test_a_run_that_did_not_say_whether_it_works_is_not_counted_among_the_others() -> None:
    standing, news = absorb(
        Standing(branch="main", workflow="tests"), run(2, BAD), [run(1, Conclusion.CANCELLED), run(3, None)]
    )
    assert news is BuildNews.BROKE and standing.last == run(2, BAD) and not standing.flaky


@pytest.mark.parametrize(("first", "second"), [(GOOD, BAD), (BAD, GOOD)])
def test_different_results_on_one_commit_are_flaky_both_ways(first: Conclusion, second: Conclusion) -> None:
    standing, news = told([run(1, first, commit="c"), run(2, second, commit="c")])
    assert news[1] is BuildNews.FLAKY and standing.flaky == ("c",)
    assert (standing.broken_by is None) is (second is GOOD)


def test_a_failing_attempt_that_is_run_again_and_works_is_mended_and_flaky() -> None:
    standing, news = told([run(1, BAD, id="r", commit="c"), run(9, GOOD, id="r", commit="c", attempt=2)])
    assert news == [BuildNews.BROKE, BuildNews.FLAKY]
    assert standing.broken_by is None and standing.green is not None and standing.green.attempt == 2


def test_an_attempt_that_fails_again_is_not_flaky() -> None:
    standing, news = told([run(1, BAD, id="r", commit="c"), run(9, BAD, id="r", commit="c", attempt=2)])
    assert news == [BuildNews.BROKE, BuildNews.STILL_BROKEN] and not standing.flaky


@pytest.mark.parametrize("again", [GOOD, BAD])
def test_an_old_run_that_is_run_again_does_not_speak_for_the_newest_commit(again: Conclusion) -> None:
    old, new = run(1, BAD, id="old", commit="c1"), run(2, commit="c2")
    standing, news = told([old, new, run(9, again, id="old", commit="c1", attempt=2)])
    assert standing.last == new and standing.broken_by is None and news[2] is BuildNews.NOTHING
    assert standing.flaky == (("c1",) if again is GOOD else ())


def test_an_old_run_that_ends_late_is_no_news() -> None:
    slow = run(1, BAD, ended=90)
    standing, news = told([run(2), run(3), slow])
    assert news[-1] is BuildNews.NOTHING and standing.broken_by is None and standing.last == run(3)


def test_a_late_good_run_is_known_as_the_last_that_worked() -> None:
    standing, news = told([run(1), run(3, BAD), run(2)])
    assert news == [BuildNews.NOTHING, BuildNews.BROKE, BuildNews.NOTHING]
    assert standing.green == run(2) and standing.broken_by == run(3, BAD)


def test_what_people_were_told_stays_while_it_is_broken_and_goes_when_it_is_mended() -> None:
    standing, _ = told([run(1), run(3, BAD)])
    standing = standing.evolve(told="key", suggestion="sg-abc123", task="task-abc123")
    late, _ = absorb(standing, run(2, BAD), [run(1), run(3, BAD)])
    assert late.broken_by == run(2, BAD) and (late.told, late.task) == ("key", "task-abc123")
    fixed, _ = absorb(late, run(4), [run(1), run(2, BAD), run(3, BAD)])
    assert (fixed.told, fixed.suggestion, fixed.task, fixed.failure) == ("", "", "", None)


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from([*Conclusion, None, GOOD, BAD, GOOD, BAD]), st.sampled_from("abcd"), st.integers(0, 3)
    ),
    max_size=10,
).map(
    lambda rows: [
        run(
            place,
            conclusion,
            # some rows are further attempts of the run before, which are of its commit
            commit=f"commit-of-{place - place % (attempt or 1)}" if attempt else commit,
            id=f"run-{place - place % (attempt or 1)}" if attempt else None,
            attempt=1 + (place % attempt if attempt else 0),
        )
        for place, (conclusion, commit, attempt) in enumerate(rows)
    ]
)


@settings(max_examples=400, deadline=None)
@given(HISTORIES, st.data())
def test_what_is_known_does_not_depend_on_order_and_repetition(
    history: list[Run], data: st.DataObject
) -> None:
    history = list({(one.id, one.attempt): one for one in history}.values())
    order = data.draw(st.permutations(history))
    again = data.draw(st.lists(st.sampled_from(history), max_size=6)) if history else []
    mixed = data.draw(st.permutations([*order, *again]))
    assert outline(told(mixed)[0]) == outline(told(history)[0])


@settings(max_examples=400, deadline=None)
@given(HISTORIES, st.data())
def test_breaks_and_repairs_alternate_in_whatever_order_runs_come(
    history: list[Run], data: st.DataObject
) -> None:
    standing, known, broken = Standing(branch="main", workflow="tests"), list[Run](), False
    for one in data.draw(st.permutations(history)):
        changed, news = absorb(standing, one, known)
        assert (news is BuildNews.BROKE) <= (not broken) and (news is BuildNews.FIXED) <= broken
        assert (changed.broken_by is not None) is (
            changed.last is not None and changed.last.conclusion is not None and changed.last.conclusion.bad
        )
        if news in (BuildNews.NOTHING, BuildNews.STILL_BROKEN):
            assert (changed.broken_by is not None) is broken
        standing, broken = changed, changed.broken_by is not None
        known.append(one)


@settings(max_examples=200, deadline=None)
@given(HISTORIES, st.data())
def test_the_runs_of_one_commit_are_enough_to_know_whether_it_works(
    history: list[Run], data: st.DataObject
) -> None:
    history = [one for one in history if one.attempt == 1]
    mixed = told(data.draw(st.permutations(history)), same_commit_only=True)[0]
    whole = told(history)[0]
    assert (mixed.last, mixed.broken_by is None) == (whole.last, whole.broken_by is None)
    assert set(mixed.flaky) == set(whole.flaky)
