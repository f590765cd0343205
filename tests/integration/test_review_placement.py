"""The set of placements that was written by hand, with git and unidiff as peers."""

from __future__ import annotations

from benchmarks.review import placement


def test_every_place_of_the_set_is_as_a_person_said_and_no_peer_disagrees():
    figure, wrong = placement.measure()
    assert wrong == []
    assert figure["ok"] and figure["value"] == 100


def test_the_set_is_of_at_least_fifty_hunks_and_its_diffs_are_what_git_prints(tmp_path):
    cases = placement.cases()
    assert sum(case["hunks"] for case in cases) >= 50
    assert len({case["name"] for case in cases}) == len(cases)
    stored = placement.diffs()
    scratch = placement.Scratch(tmp_path)
    for case in cases[::6]:
        assert scratch.diff(case) == stored[case["name"]]
