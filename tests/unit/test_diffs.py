"""What is read of a git diff: every kind of file, what is cut, what is too large, and how a model is shown it."""

from __future__ import annotations

import json
import time

import pytest
from benchmarks.review.placement import DIFFS, cases, content
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain import diffs
from codespar.domain.diffs import CombinedDiff, FileStatus, Line, TooLarge, parse
from codespar.domain.difftext import numbered
from codespar.domain.generated import generated_as
from codespar.domain.reviews import Side

REAL: dict[str, str] = json.loads(DIFFS.read_text())
CASES = {case["name"]: case for case in cases()}
ONE = """diff --git a/a.py b/a.py
index 1111111..2222222 100644
--- a/a.py
+++ b/a.py
@@ -1,4 +1,5 @@ def f():
 one
-two
+2
+zwei
 three
 four
"""


def status(name: str) -> list[tuple[str, str | None, str | None]]:
    return [(file.status.value, file.old_path, file.new_path) for file in parse(REAL[name]).files]


def test_a_hunk_has_every_line_with_its_number_on_either_side():
    (file,) = parse(ONE).files
    (hunk,) = file.hunks
    assert hunk.section == "def f():"
    assert hunk.lines == (
        Line(" ", 1, 1, "one"),
        Line("-", 2, None, "two"),
        Line("+", None, 2, "2"),
        Line("+", None, 3, "zwei"),
        Line(" ", 3, 4, "three"),
        Line(" ", 4, 5, "four"),
    )
    assert (file.additions, file.deletions, file.status) == (2, 1, FileStatus.MODIFIED)
    assert file.changed_lines(Side.NEW) == {2, 3} and file.changed_lines(Side.OLD) == {2}
    assert file.text_between(2, 4) == "2\nzwei\nthree" and file.text_between(1, 2, Side.OLD) == "one\ntwo"
    assert file.text_between(5, 6) is None and file.text_between(3, 2) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("new file", [("added", None, "src/new.py")]),
        ("deleted file", [("deleted", "a.py", None)]),
        ("empty new file", [("added", None, "pkg/__init__.py")]),
        ("empty file deleted", [("deleted", "pkg/__init__.py", None)]),
        ("a file that is emptied", [("modified", "a.py", "a.py")]),
        ("renamed only", [("renamed", "a.py", "b.py")]),
        ("renamed and changed", [("renamed", "a.py", "dir/b.py")]),
        ("copied and changed", [("copied", "a.py", "b.py")]),
        ("mode only", [("mode", "run.sh", "run.sh")]),
        ("mode and content", [("modified", "run.sh", "run.sh")]),
        ("binary changed", [("binary", "a.bin", "a.bin")]),
        ("binary patch", [("binary", "a.bin", "a.bin"), ("modified", "b.py", "b.py")]),
        ("binary added and removed", [("deleted", "a.bin", None), ("added", None, "b.bin")]),
        ("submodule bump", [("submodule", "lib", "lib")]),
        ("submodule added", [("added", None, ".gitmodules"), ("submodule", None, "lib")]),
        ("a file that becomes a link", [("deleted", "now", None), ("added", None, "now")]),
        ("path with blanks", [("modified", "my docs/my file.py", "my docs/my file.py")]),
        ("path with a tab", [("modified", "a\tb c.py", "a\tb c.py")]),
        ("path with a line feed", [("modified", "x\ny.py", "x\ny.py")]),
        ("path with letters beyond ASCII", [("modified", "tür/naïve.py", "tür/naïve.py")]),
        ("path with quotes and a backslash", [("modified", 'q"uo\\te.py', 'q"uo\\te.py')]),
        ("a quoted path renamed to a plain one", [("renamed", "tür.py", "door b/x.py")]),
        ("a path that looks like the end of a header", [("mode", "x b/x", "x b/x"), ("modified", "y", "y")]),
        ("text that looks like a diff", [("modified", "a.sql", "a.sql"), ("added", None, "b.sql")]),
    ],
)
def test_each_kind_of_file_is_told_from_the_others(
    name: str, expected: list[tuple[str, str | None, str | None]]
):
    assert status(name) == expected


@pytest.mark.parametrize("name", REAL)
def test_a_line_that_a_real_diff_keeps_is_found_where_it_stands_now(name: str):
    case, diff = CASES[name], parse(REAL[name])
    assert diff.problems == ()
    for file in diff.files:
        if not file.hunks or file.status is FileStatus.SUBMODULE or not file.old_path or not file.new_path:
            continue
        old, new = (
            content(case[tree][path]).decode("utf-8", "replace").split("\n")
            for tree, path in (("old", file.old_path), ("new", file.new_path))
        )
        removed = file.changed_lines(Side.OLD)
        for number in range(1, len(old)):
            at = file.new_line(number)
            assert (at is None) == (number in removed)
            assert at is None or new[at - 1] == old[number - 1]
        assert len(new) - len(old) == file.additions - file.deletions or "newline" in name


def test_a_carriage_return_belongs_to_the_text_and_other_separators_end_no_line():
    (file,) = parse(REAL["CRLF kept"]).files
    assert file.text_between(6, 6) == "changed\r"
    (file,) = parse(REAL["signs that other languages end lines with"]).files
    assert file.text_between(1, 5) == "a\u2028b\nc\x0cD\ne\x85f\ng\x0bH\ni"


def test_a_last_line_without_a_line_feed_counts_once():
    (file,) = parse(REAL["a newline added at the end"]).files
    assert file.changed_lines(Side.NEW) == {8} == file.changed_lines(Side.OLD)


@pytest.mark.parametrize("name", ["two hunks, and ranges over both", "renamed and changed", "several files"])
def test_a_diff_that_is_cut_anywhere_is_read_as_far_as_it_goes_and_says_so(name: str):
    text = REAL[name]
    whole = [line for file in parse(text).files for hunk in file.hunks for line in hunk.lines]
    boundaries = {at for at in range(len(text)) if text.startswith(("diff --git", "@@ "), at)} | {0}
    for end in range(len(text)):
        diff = parse(text[:end])
        lines = [line for file in diff.files for hunk in file.hunks for line in hunk.lines]
        complete_or_last = lines == whole[: len(lines)] or lines[:-1] == whole[: len(lines) - 1]
        assert complete_or_last, end
        if lines != whole[: len(lines)]:
            assert "may be cut" in diff.problems[-1]
        assert diff.problems or end in boundaries, end


def test_an_unfinished_line_of_an_unfinished_hunk_is_not_taken_for_what_the_file_holds():
    diff = parse(ONE[: ONE.index("zwei") + 2])
    (file,) = diff.files
    assert [line.text for line in file.hunks[0].lines] == ["one", "two", "2"]
    assert diff.problems == (
        "a.py: the hunk at line 1 is cut: 2 old and 2 new lines are missing",
        "the diff ends without a line feed: its last line may be cut",
    )


def test_lines_that_belong_to_no_hunk_are_named_and_not_taken():
    diff = parse(ONE + "-- \n2.39.5\n")
    assert diff.files == parse(ONE).files
    assert diff.problems == ("a.py: the hunk at line 1 is followed by 2 lines that belong to no hunk",)


def test_what_is_no_diff_is_said_to_be_none():
    assert parse("").problems == () and parse("\n").files == ()
    assert parse("hello\n@@ -1 +1 @@\n-a\n+b\n").problems == ("no file of a git diff is in the text",)
    assert parse("warning: something\n" + ONE).problems == ("text before the first file was passed over",)


def test_many_problems_are_counted():
    diff = parse("diff --git a/a b/a\n--- a/a\n+++ b/a\n" + "@@ nonsense @@\n" * 99)
    assert len(diff.problems) == diffs.MOST_PROBLEMS + 1 and diff.problems[-1] == "and 80 problems more"


@pytest.mark.parametrize("head", ["diff --cc a.py\n", "diff --combined a.py\n", "diff --git a/a.py b/a.py\n"])
def test_a_combined_diff_is_refused_with_what_to_do(head: str):
    text = f"{head}index 1,2..3\n--- a/a.py\n+++ b/a.py\n@@@ -1,1 -1,1 +1,1 @@@\n- a\n -b\n++c\n"
    with pytest.raises(CombinedDiff, match="ask for the diff against one of them"):
        parse(text)


def test_a_diff_beyond_the_cap_is_refused_with_its_size():
    with pytest.raises(TooLarge, match=r"has 67,108,8\d\d bytes, and at most 67,108,864"):
        parse("ä" * (diffs.MOST_BYTES // 2 + 1))
    with pytest.raises(TooLarge, match=r"has 5,000,001 lines"):
        parse("\n" * (diffs.MOST_LINES + 1))


def test_fifty_megabytes_in_five_thousand_files_are_read_in_seconds():
    body = "".join(f" context {n}\n-old line {n} {'x' * 45}\n+new line {n} {'y' * 45}\n" for n in range(80))
    files = [
        f"diff --git a/f{n}.py b/f{n}.py\n--- a/f{n}.py\n+++ b/f{n}.py\n@@ -1,160 +1,160 @@\n{body}"
        for n in range(5000)
    ]
    text = "".join(files)
    assert len(text) > 50_000_000
    began = time.process_time()
    diff = parse(text)
    shown, left_out = numbered(diff, 100_000)
    assert time.process_time() - began < 10
    assert (len(diff.files), diff.additions, diff.problems) == (5000, 400_000, ())
    assert len(shown) <= 100_000 and len(left_out) > 4900


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list('ab@-+ \\\n"/019,\t\r\u2028d')), max_size=300))
def test_no_text_behind_a_header_makes_the_parser_fail_or_loop(text: str):
    try:
        diff = parse("diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n" + text)
    except CombinedDiff:
        return
    for file in diff.files:
        for hunk in file.hunks:
            assert len(hunk.extent(Side.OLD)) == sum(line.old is not None for line in hunk.lines)
            assert len(hunk.extent(Side.NEW)) == sum(line.new is not None for line in hunk.lines)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("web/package-lock.json", "a lock file"),
        ("uv.lock", "a lock file"),
        ("go.sum", "a lock file"),
        ("requirements-dev.lock", "a lock file"),
        ("vendor/lib/x.go", "vendored"),
        ("web/node_modules/x/index.js", "vendored"),
        ("static/app.min.js", "minified"),
        ("static/app.js.map", "minified"),
        ("proto/user_pb2.py", "generated, by its name"),
        ("proto/user_pb2_grpc.pyi", "generated, by its name"),
        ("api/user.pb.go", "generated, by its name"),
        ("src/locksmith.py", ""),
        ("src/vendors.py", ""),
        ("src/admin.py", ""),
        ("lock.py", ""),
    ],
)
def test_what_nobody_wrote_is_known_by_its_path(path: str, reason: str):
    assert generated_as(path) == reason


def test_a_generator_is_believed_in_a_comment_at_the_head_of_a_file_and_nowhere_else():
    assert (
        generated_as("a.go", ["// Code generated by protoc. DO NOT EDIT."])
        == "generated, by what its head says"
    )
    assert generated_as("a.py", ["# This file is auto-generated, do not edit"])
    assert generated_as("a.py", ['print("Code generated by me. DO NOT EDIT")']) == ""
    marked = "+# Code generated by x. DO NOT EDIT.\n"
    new = (
        "diff --git a/a.py b/a.py\nnew file mode 100644\n--- /dev/null\n+++ b/a.py\n@@ -0,0 +1,1 @@\n"
        + marked
    )
    late = "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -50,0 +51,1 @@\n" + marked
    assert [parse(text).files[0].generated for text in (new, late)] == [True, False]


def test_a_model_reads_both_numbers_of_each_line_and_hunks_and_files_apart():
    text, left_out = numbered(parse(ONE), 10_000)
    assert left_out == ()
    assert text == (
        "=== a.py (modified) +2 -1\n"
        "@@ -1,4 +1,5 @@ def f():\n"
        "     1      1   one\n"
        "     2        - two\n"
        "            2 + 2\n"
        "            3 + zwei\n"
        "     3      4   three\n"
        "     4      5   four\n"
        "\n"
    )


def test_what_a_model_is_not_shown_is_named_and_what_has_no_content_is_shown_by_name():
    text = "".join(
        REAL[name]
        for name in (
            "a lock file",
            "binary changed",
            "mode only",
            "renamed only",
            "empty new file",
            "new file",
        )
    )
    shown, left_out = numbered(parse(text), 10_000)
    assert left_out == ("package-lock.json: a lock file", "a.bin: binary, binary")
    assert shown == (
        "=== run.sh (mode, mode 100644 to 100755) +0 -0\n\n"
        "=== b.py (renamed, was a.py) +0 -0\n\n"
        "=== pkg/__init__.py (added) +0 -0\n\n"
        "=== src/new.py (added) +5 -0\n@@ -0,0 +1,5 @@\n"
        + "".join(f"            {n} + line {n}\n" for n in range(1, 6))
        + "\n"
    )


def added(path: str, lines: list[str]) -> str:
    body = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{body}"


def test_code_comes_before_tests_documents_and_data_and_all_within_the_budget():
    paths = ["data/x.csv", "README.md", "tests/test_a.py", "src/a.py"]
    diff = parse("".join(added(path, [f"line {n}" for n in range(100)]) for path in paths))
    text, left_out = numbered(diff, 100_000)
    assert [line[4:].split()[0] for line in text.split("\n") if line.startswith("===")] == paths[::-1]
    assert left_out == ()
    for budget in (0, 10, 200, 1000, 3000, 6000):
        text, left_out = numbered(diff, budget)
        assert len(text) <= budget and left_out
    assert text.startswith("=== src/a.py")


def test_one_huge_file_does_not_crowd_out_the_others():
    diff = parse(added("src/a.py", ["x" * 50] * 5000) + added("src/b.py", ["y"] * 10))
    text, left_out = numbered(diff, 20_000)
    assert "=== src/b.py" in text and len(text) <= 20_000
    assert len(left_out) == 1 and left_out[0].startswith("src/a.py: from hunk 1 of 1, line ")


def test_a_line_without_an_end_is_cut_and_said_to_be():
    text, left_out = numbered(parse(added("src/a.py", ["z" * 1_000_000, "b"])), 50_000)
    assert (
        "[cut]\n" in text
        and "+ b\n" in text
        and left_out == ("src/a.py: 1 lines were cut at 2,000 characters",)
    )


def test_nothing_in_a_diff_can_look_like_the_frame_around_it():
    hostile = [
        "=== src/b.py (modified) +0 -0",
        "@@ -1,1 +1,1 @@",
        "a\r=== fake",
        "b\u2028=== fake",
        "c\u202efake",
        "\x1b[2J",
    ]
    text, _ = numbered(parse(added("src/a.py", hostile)), 10_000)
    lines = text.splitlines()
    assert [line for line in lines if line.startswith(("===", "@@"))] == [
        "=== src/a.py (added) +6 -0",
        "@@ -0,0 +1,6 @@",
    ]
    assert "c\\u202efake" in text and "\\u001b[2J" in text and len(lines) == 9
