"""Which container images are of no use any more: the rule, without an engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from codespar.sandbox.imageuse import MARK, Listed, unused

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(days=14)


def image(
    id: str = "sha256:aaaa", *tags: str, age: int = 100, labelled: bool = True, parent: str = ""
) -> Listed:
    return Listed.of(
        {
            "Id": id,
            "ParentId": parent,
            "RepoTags": list(tags),
            "Labels": {"codespar.inputs": "x"} if labelled else None,
            "Size": 1000,
            "Created": (NOW - timedelta(days=age)).timestamp(),
        }
    )


def marked(days: int) -> str:
    return f"{MARK}:aaaa-{NOW - timedelta(days=days):%Y%m%d}"


def test_the_newest_mark_says_when_an_image_was_used_last() -> None:
    used = image("sha256:aaaa", "codespar/task-agent:0.1.0", marked(40), marked(3))
    assert unused([used], (), (), BEFORE) == []
    unused_for_long = image("sha256:aaaa", "codespar/task-agent:0.1.0", marked(40), marked(15), age=0)
    assert unused([unused_for_long], (), (), BEFORE) == [unused_for_long]


def test_the_day_of_a_mark_counts_to_its_end() -> None:
    on_the_day = image("sha256:aaaa", marked(14))
    assert on_the_day.used_at > BEFORE
    assert unused([on_the_day], (), (), BEFORE) == []


def test_an_image_without_a_mark_counts_from_when_it_was_made() -> None:
    assert unused([image(age=13)], (), (), BEFORE) == []
    nameless = image("sha256:bbbb", "<none>:<none>")
    assert unused([nameless], (), (), BEFORE) == [nameless]


def test_somebodys_own_image_made_from_ours_has_our_label_and_is_not_ours() -> None:
    for name in ("team/dev:1", "registry.example.com:5000/codespar/task-agent:1", "codespar/base:bookworm"):
        assert unused([image("sha256:aaaa", "codespar/task-agent:0.1.0", name)], (), (), BEFORE) == []


IDS = st.sampled_from([f"sha256:{letter * 4}" for letter in "abcdef"])


@st.composite
def engines(draw: st.DrawFn) -> list[Listed]:
    names = st.sampled_from(["codespar/task-agent:1", "codespar/environment:2", "team/dev:1", "debian:12"])
    return [
        image(
            id,
            *draw(st.lists(names, max_size=2, unique=True)),
            *[marked(draw(st.integers(0, 40))) for _ in range(draw(st.integers(0, 2)))],
            age=draw(st.integers(0, 40)),
            labelled=draw(st.booleans()),
            parent=draw(st.one_of(st.just(""), IDS)),
        )
        for id in draw(st.sets(IDS))
    ]


@given(engines(), st.sets(IDS), st.sets(IDS))
def test_nothing_goes_that_is_used_wanted_stood_on_foreign_or_new(
    images: list[Listed], running: set[str], keep: set[str]
) -> None:
    for one in unused(images, running, keep, BEFORE):
        assert one.labelled
        assert all(name.startswith("codespar/") for name in one.names)
        assert one.id not in running | keep
        assert one.id not in {other.parent for other in images}
        assert all(mark[-8:] < f"{BEFORE:%Y%m%d}" for mark in one.marks)
        assert one.marks or one.created_at < BEFORE
