"""Screening of a change: blocked paths, and secrets however they are dressed up in a diff."""

from __future__ import annotations

import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.screening.change import added_lines, secrets_in
from codespar.screening.screen import Screen

GITHUB = "ghp_" + "a1B2" * 9
AWS = "AKIA" + "ABCDEFGH23456789"
ANTHROPIC = "sk-ant-api03-" + "x" * 40


def diff_of(folder: Path, before: dict[str, str], after: dict[str, str]) -> str:
    """What git says of the change."""
    for side, files in (("a", before), ("b", after)):
        for name, content in files.items():
            (folder / side).mkdir(parents=True, exist_ok=True)
            (folder / side / name).write_text(content, newline="")
    command = ["git", "diff", "--no-index", "--no-ext-diff", "a", "b"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("token", [GITHUB, AWS, ANTHROPIC, "-----BEGIN RSA PRIVATE KEY-----"])
def test_tokens_of_known_formats_are_found(token: str) -> None:
    diff = f"--- a/x\n+++ b/x.py\n@@ -0,0 +1,2 @@\n+import os\n+KEY = '{token}'\n"
    found = secrets_in(diff)
    assert [(path, line) for path, line, _ in found] == [("x.py", 5)]
    told = Screen().problems(["x.py"], diff, ())
    assert "x.py" in told[0] and token not in told[0], "a secret is never repeated"


@pytest.mark.parametrize("line", ["KEY = load('{}')", "KEY = '{}'  # pragma: allowlist secret"])
def test_a_change_cannot_talk_its_way_past_the_screen(line: str) -> None:
    added = line.format(AWS)
    assert secrets_in(f"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+{added}\n") == [("x", 4, "AWS Access Key")]


@pytest.mark.parametrize("dressing", ["++ {}", "++ b/{}", "-- {}", "@@ -1 +1 @@ {}", "\\ {}", " {}"])
def test_content_that_looks_like_a_header_is_content(dressing: str) -> None:
    added = dressing.format(AWS)
    diff = f"--- a/x\n+++ b/x\n@@ -0,0 +1,2 @@\n+{added}\n+end\n"
    assert [kind for _, _, kind in secrets_in(diff)] == ["AWS Access Key"]


def test_removed_and_unchanged_lines_do_not_count() -> None:
    diff = f"--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-{AWS}\n {GITHUB}\n+clean\n"
    assert secrets_in(diff) == []


def test_a_test_with_a_password_in_it_is_no_secret() -> None:
    assert secrets_in('--- a/t\n+++ b/t\n@@ -0,0 +1 @@\n+password = "correct horse battery"\n') == []


@pytest.mark.parametrize(
    ("pattern", "path", "blocked"),
    [
        (".github/", ".github/workflows/ci.yml", True),
        ("*.lock", "deep/in/poetry.lock", True),
        ("/Makefile", "Makefile", True),
        ("/Makefile", "sub/Makefile", False),
        ("secrets/**", "secrets/a/b", True),
        ("docs/", "src/docs.py", False),
    ],
)
def test_blocked_paths_are_patterns_as_in_gitignore(pattern: str, path: str, blocked: bool) -> None:
    assert bool(Screen().problems([path], "", (pattern,))) is blocked


LINE = st.text(alphabet=string.ascii_letters + "+-@\\ #", max_size=12)
TEXT = st.lists(LINE, max_size=8).map("\n".join)


@settings(max_examples=40, deadline=None)
@given(before=TEXT, after=TEXT, final=st.booleans())
def test_the_added_lines_are_those_git_counts(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, final: bool
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    end = "\n" if final else ""
    diff = diff_of(folder, {"f": before + end}, {"f": after + end})
    found = [content for _, _, content in added_lines(diff)]
    counted = subprocess.run(
        ["git", "diff", "--no-index", "--numstat", "a", "b"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert len(found) == (int(counted.split()[0]) if counted else 0)
    kept = (after + end).split("\n")
    assert all(line in kept for line in found)
