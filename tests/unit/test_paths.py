"""Path patterns, code owners and what a file is for."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.domain.paths import Role, code_owners, matches, role, words


@pytest.mark.parametrize(
    ("pattern", "named", "not_named"),
    [
        ("*.py", ["a.py", "deep/in/a.py"], ["a.pyc", "a.py.txt"]),
        ("/*.py", ["a.py"], ["deep/a.py"]),
        ("src/*.py", ["src/a.py"], ["src/deep/a.py", "other/src/a.py"]),
        ("auth", ["auth", "auth/x", "src/auth/x/y"], ["author", "src/oauth/x"]),
        ("auth/", ["auth/x", "src/auth/x"], ["auth", "src/auth"]),
        ("**/auth/**", ["auth/x", "a/b/auth/c/d"], ["auth", "a/auth"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b", "a/x/b/z"], ["b", "x/a/b", "ab"]),
        ("a/**/**/b", ["a/b", "a/x/y/b"], ["a"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "x/a.c"], ["ac", "a/c"]),
        ("x[!a-c]", ["xd"], ["xa", "x/", "x"]),
        ("x[]]", ["x]"], ["x"]),
        ("x[a", ["x[a"], ["xa"]),
        (r"\*", ["*"], ["a"]),
        ("a+b(c).d", ["a+b(c).d"], ["aab(c).d", "a+b(c)xd"]),
        ("", [], ["", "a"]),
        ("/", [], ["", "a", "/"]),
    ],
)
def test_a_pattern_names_what_gitignore_would_name(pattern: str, named: list[str], not_named: list[str]):
    assert [path for path in named if not matches((pattern,), path)] == []
    assert [path for path in not_named if matches((pattern,), path)] == []


def test_a_line_feed_in_a_name_takes_no_path_out_of_a_folder():
    assert matches(("infra/",), "infra/a\nb.tf") and matches(("/infra",), "infra/a\nb")


def test_one_of_several_patterns_is_enough_and_none_matches_nothing():
    assert matches(("x", "/src/*.c", "*.py"), "src/a.c")
    assert not matches((), "a")


def test_a_pattern_that_cannot_be_read_is_named_in_the_error():
    with pytest.raises(ValueError, match=re.escape("'[z-a]' is no path pattern")):
        matches(("[z-a]",), "z")


@given(st.text("ab.*?", max_size=8), st.text("ab.", min_size=1, max_size=8))
def test_within_one_name_a_pattern_is_a_shell_pattern(pattern: str, name: str):
    if pattern.strip("*") or len(pattern) == 1:  # `**` has its own meaning
        assert matches((f"/{pattern}",), name) == fnmatch.fnmatchcase(name, pattern)


@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_refused_and_never_takes_long(pattern: str):
    try:
        matches((pattern,), "a/" * 12 + "b")
    except ValueError as e:
        assert "is no path pattern" in str(e)


OWNERS = """
# the last line that names a path counts
*           @everyone
/docs/*     @writers    # that folder alone
*.py        @python @org/core
src/vendor/
[Section]
"""


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("README", ("@everyone",)),
        ("docs/a.md", ("@writers",)),
        ("docs/deep/a.md", ("@everyone",)),
        ("docs/a.py", ("@python", "@org/core")),
        ("src/vendor/a.py", ()),
    ],
)
def test_the_last_line_that_names_a_path_gives_its_owners(path: str, owners: tuple[str, ...]):
    assert code_owners(OWNERS, path) == owners


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/app.py", Role.CODE),
        ("latest.py", Role.CODE),
        ("spec.rs", Role.CODE),
        ("CMakeLists.txt", Role.CODE),
        ("docs/conf.py", Role.CODE),
        ("no/ending", Role.CODE),
        ("tests/app.py", Role.TESTS),
        ("src/FooTest.java", Role.TESTS),
        ("a/x.spec.ts", Role.TESTS),
        ("test_a.py", Role.TESTS),
        ("a_test.go", Role.TESTS),
        ("README.md", Role.DOCS),
        ("LICENSE", Role.DOCS),
        ("LICENSE.txt", Role.DOCS),
        ("app/news.py", Role.CODE),
        ("src/license.go", Role.CODE),
        ("docs/logo.svg", Role.DOCS),
        ("config/app.yml", Role.CONFIG),
        (".gitignore", Role.CONFIG),
        ("web/package.json", Role.MANIFEST),
        ("requirements-dev.txt", Role.MANIFEST),
        ("Cargo.lock", Role.LOCK),
        ("go.sum", Role.LOCK),
    ],
)
def test_a_path_tells_what_its_file_is_for(path: str, expected: Role):
    assert role(path) is expected


def test_words_are_parted_in_one_way():
    assert words("src/AuthToken-Store.java") == "src/auth_token_store.java"
    assert words("HTTPServer.py") == "http_server.py"
