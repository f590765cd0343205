"""The package versions that a change brings in, as far as its hunks tell."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.dependencies import MOST_PACKAGES, changed_packages
from codespar.domain.diffs import parse


def diff(path: str, hunk: str, *, section: str = "", start: int = 10) -> str:
    """A diff of one file with one hunk, whose header is counted out."""
    lines = textwrap.dedent(hunk).strip("\n").split("\n")
    lines = [line or " " for line in lines]
    old, new = (sum(line[0] in f" {kind}" for line in lines) for kind in "-+")
    head = f"diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n--- a/{path}\n+++ b/{path}\n"
    return head + f"@@ -{start},{old} +{start},{new} @@ {section}".rstrip() + "\n" + "\n".join(lines) + "\n"


def told(path: str, hunk: str, **options: str) -> list[tuple[str, str, str, int]]:
    found = changed_packages(parse(diff(path, hunk, **options)))  # type: ignore[arg-type]
    assert all(one.path == path for one in found)
    return [(one.ecosystem, one.name, one.version, one.line) for one in found]


@pytest.mark.parametrize(
    "path",
    [
        "requirements.txt",
        "dev-requirements.txt",
        "requirements/test.txt",
        "a/constraints.txt",
        "requirements_dev.in",
    ],
)
def test_pinned_requirements_are_told(path: str) -> None:
    hunk = """
         # pinned
        -Django==4.2.0
        +Django==4.2.1
        +Zope.Interface[test] == 5.0 ; python_version < "3.12"  # why
        +flask>=2
        +celery==5.*
        +-e git+https://example.org/x.git#egg=x==1.0
        +urllib3==2.0.1 \\
        +    --hash=sha256:00
         attrs==23.1.0
    """
    assert told(path, hunk) == [
        ("PyPI", "django", "4.2.1", 11),
        ("PyPI", "zope-interface", "5.0", 12),
        ("PyPI", "urllib3", "2.0.1", 16),
    ]


def test_a_requirement_that_only_moved_brings_nothing_in() -> None:
    assert told("requirements.txt", " b==1\n-a==2\n c==3\n+a==2\n") == []


def test_a_lower_version_is_told_too() -> None:
    assert told("requirements.txt", "-a==2\n+a==1\n") == [("PyPI", "a", "1", 10)]


PIPFILE = """
         "certifi": {
             "hashes": [
        -        "sha256:00"
        +        "sha256:11"
             ],
             "index": "pypi",
        -    "version": "==2023.5.7"
        +    "version": "==2023.7.22"
         },
         "idna": {
"""


def test_pipfile_lock_is_read() -> None:
    assert told("Pipfile.lock", PIPFILE) == [("PyPI", "certifi", "2023.7.22", 15)]


def test_a_version_whose_package_the_hunk_does_not_show_is_left_out() -> None:
    without = PIPFILE.replace('"certifi": {', '"hashes": [')
    assert told("Pipfile.lock", without) == []
    assert told("poetry.lock", ' [[package]]\n-version = "1"\n+version = "2"\n description = "x"\n') == []
    assert told("package-lock.json", '-      "version": "1.0.0",\n+      "version": "1.0.1",\n') == []
    assert told("yarn.lock", '-  version "1.0.0"\n+  version "1.0.1"\n') == []


def test_poetry_lock_is_read_but_for_what_comes_from_elsewhere() -> None:
    hunk = """
         [[package]]
         name = "Jinja2"
        -version = "3.1.1"
        +version = "3.1.2"
         description = "x"

        +[[package]]
        +name = "ours"
        +version = "1.0"
        +description = "x"
        +
        +[package.source]
        +type = "git"
    """
    assert told("poetry.lock", hunk) == [("PyPI", "jinja2", "3.1.2", 12)]


def test_uv_lock_is_read_but_for_what_is_not_from_an_index() -> None:
    hunk = """
         [[package]]
         name = "anyio"
        -version = "4.0.0"
        +version = "4.1.0"
         source = { registry = "https://packages.example.org/simple" }
        +[[package]]
        +name = "app"
        +version = "0.1.0"
        +source = { editable = "." }
    """
    assert told("uv.lock", hunk) == [("PyPI", "anyio", "4.1.0", 12)]


def test_package_lock_is_read_nested_scoped_and_aliased() -> None:
    hunk = """
         "node_modules/@babel/core": {
        -  "version": "7.0.0",
        +  "version": "7.1.2",
           "dependencies": {
             "version": "^1.0.0"
           }
         },
        +"node_modules/a/node_modules/semver": {
        +  "version": "6.3.0",
        +  "dev": true
        +},
        +"node_modules/alias": {
        +  "name": "real",
        +  "version": "2.0.0"
        +},
        +"packages/ours": {
        +  "version": "9.9.9"
        +},
        +"node_modules/linked": {
        +  "resolved": "packages/ours",
        +  "link": true
        +},
    """
    assert told("web/package-lock.json", hunk) == [
        ("npm", "@babel/core", "7.1.2", 11),
        ("npm", "semver", "6.3.0", 17),
        ("npm", "real", "2.0.0", 22),
    ]


def test_the_version_of_the_project_itself_is_no_package() -> None:
    hunk = """
         {
           "name": "app",
        -  "version": "1.0.0",
        +  "version": "1.0.1",
           "lockfileVersion": 3,
           "packages": {
             "": {
               "name": "app",
        -      "version": "1.0.0",
        +      "version": "1.0.1",
    """
    assert told("package-lock.json", hunk) == []


def test_yarn_lock_of_both_kinds_is_read() -> None:
    hunk = """
         "@babel/core@^7.0.0", "@babel/core@^7.1.0":
        -  version "7.0.0"
        +  version "7.1.2"
           resolved "https://registry.yarnpkg.com/x"
        +lodash@4:
        +  version "4.17.20"
        +"mine@npm:theirs@^1.0.0":
        +  version "1.0.3"
        +"left-pad@npm:^1.3.0":
        +  version: 1.3.0
        +"app@workspace:.":
        +  version: 0.0.0-use.local
        +"forked@https://github.com/x/y.git":
        +  version "1.0.0"
    """
    assert told("yarn.lock", hunk) == [
        ("npm", "@babel/core", "7.1.2", 11),
        ("npm", "lodash", "4.17.20", 14),
        ("npm", "theirs", "1.0.3", 16),
        ("npm", "left-pad", "1.3.0", 18),
    ]


def test_pnpm_lock_of_all_kinds_is_read() -> None:
    hunk = """
         packages:
        +  /@babel/core/7.1.2_react@17.0.0:
        +  /semver/5.7.0:
        +  /debug@4.3.4(supports-color@8.1.1):
        +  '@types/node@20.1.0':
        +  ms@2.1.3: {}
        +  overridden@1.0.0: 1.0.1
        +  local@file:../x:
    """
    assert told("pnpm-lock.yaml", hunk) == [
        ("npm", "@babel/core", "7.1.2", 11),
        ("npm", "semver", "5.7.0", 12),
        ("npm", "debug", "4.3.4", 13),
        ("npm", "@types/node", "20.1.0", 14),
        ("npm", "ms", "2.1.3", 15),
    ]


def test_go_mod_is_read_where_the_block_is_known() -> None:
    hunk = """
         \tgolang.org/x/sys v0.1.0
        -\tgolang.org/x/net v0.1.0
        +\tgolang.org/x/net v0.7.0 // indirect
         )
        +require github.com/pkg/errors v0.9.1
        +replace github.com/a/b => github.com/c/d v1.0.0
        +exclude (
        +\tgolang.org/x/text v0.3.0
        +)
    """
    net, errors = ("Go", "golang.org/x/net", "v0.7.0", 11), ("Go", "github.com/pkg/errors", "v0.9.1", 13)
    assert told("go.mod", hunk, section="require (") == [net, errors]
    assert told("go.mod", hunk, section="exclude (") == told("go.mod", hunk) == [errors]
    assert told("go.sum", hunk, section="require (") == []


def test_cargo_lock_is_read_but_for_our_own_crates() -> None:
    hunk = """
         [[package]]
         name = "openssl"
        -version = "0.10.50"
        +version = "0.10.55"
         source = "registry+https://github.com/rust-lang/crates.io-index"
        +[[package]]
        +name = "app"
        +version = "0.1.0"
        +dependencies = [
        +[[package]]
        +name = "cut"
        +version = "0.1.0"
    """
    assert told("Cargo.lock", hunk) == [("crates.io", "openssl", "0.10.55", 12)]


def test_gemfile_lock_is_read_where_it_is_of_the_registry() -> None:
    hunk = """
             rack (>= 2.0)
        -    rails (7.0.4)
        +    rails (7.0.5)
        +      actionpack (= 7.0.5)
        +    nokogiri (1.15.0-x86_64-linux)

         PLATFORMS
           ruby
    """
    found = [("RubyGems", "rails", "7.0.5", 11), ("RubyGems", "nokogiri", "1.15.0", 13)]
    assert told("Gemfile.lock", hunk, section="GEM") == found
    assert told("Gemfile.lock", hunk, section="PATH") == told("Gemfile.lock", hunk) == []


def test_composer_lock_is_read() -> None:
    hunk = """
         {
             "name": "symfony/http-kernel",
        -    "version": "v5.4.0",
        +    "version": "v5.4.20",
             "source": {
        +    "name": "acme/dev",
        +    "version": "dev-main",
    """
    assert told("composer.lock", hunk) == [("Packagist", "symfony/http-kernel", "v5.4.20", 12)]


def test_other_files_and_deleted_ones_tell_nothing() -> None:
    assert told("notes.txt", "+a==1") == told("docs/requirements.md", "+a==1") == []
    deleted = diff("requirements.txt", "-a==1").replace("+++ b/requirements.txt", "+++ /dev/null")
    assert changed_packages(parse(deleted)) == ()


def test_a_package_that_took_anothers_version_is_told_on_its_own_line() -> None:
    registry = ' source = "registry+https://github.com/rust-lang/crates.io-index"'
    hunk = f' [[package]]\n-name = "old"\n+name = "new"\n version = "1.0.0"\n{registry}\n'
    assert told("Cargo.lock", hunk) == [("crates.io", "new", "1.0.0", 11)]


def test_a_line_that_ends_in_a_carriage_return_is_read() -> None:
    assert told("requirements.txt", "+a==1\r") == [("PyPI", "a", "1", 10)]


def test_no_more_packages_are_told_than_is_useful() -> None:
    hunk = "".join(f"+package{number}==1.{number}\n" for number in range(2000))
    assert len(told("requirements.txt", hunk)) == MOST_PACKAGES


def test_what_git_itself_prints_is_read(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words)
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    needs = "".join(f"\texample.org/module{number} v1.{number}.0\n" for number in range(30))
    lock = "".join(
        f'[[package]]\nname = "p{n}"\nversion = "1.{n}"\nsource = {{ registry = "https://packages.example.org/simple" }}\n\n'
        for n in range(30)
    )
    git("init", "-q")
    for text in ("15.0", "15.1"):
        (tmp_path / "go.mod").write_text(f"module x\n\nrequire (\n{needs.replace('15.0', text)})\n")
        (tmp_path / "uv.lock").write_text(lock.replace('"1.15"', f'"1.{text}"'))
        git("add", "-A")
        git("commit", "-qm", text)
    found = changed_packages(parse(git("diff", "HEAD~1")))
    assert [(one.name, one.version, one.line) for one in found] == [
        ("example.org/module15", "v1.15.1", 19),
        ("p15", "1.15.1", 78),
    ]


PATHS = ["requirements.txt", "Pipfile.lock", "poetry.lock", "uv.lock", "package-lock.json", "yarn.lock"]
PATHS += ["pnpm-lock.yaml", "go.mod", "Cargo.lock", "Gemfile.lock", "composer.lock"]
TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                'name = "a"',
                'version = "1"',
                "[[package]]",
                "[package.source]",
                'source = "registry+x"',
                "GEM",
                ")",
            ),
            *(
                '  "a": {',
                '    "version": "1",',
                '"node_modules/a": {',
                "}",
                "  version 1",
                "a@1:",
                "  /a@1.0:",
            ),
            *(
                "require (",
                "\ta.b/c v1.0",
                "    a (1.0)",
                "a==1",
                '"\\ud800": {',
                '  "version": "\\ud800"',
                "=" * 999,
            ),
            *(
                "a" * 1999,
                " " * 1999,
                '"' * 1999,
                "[" * 1999,
                "a[" * 900 + "==1",
                "\\" * 1001,
                "@" * 1500,
                "a/" * 900,
            ),
        ]
    ),
    st.text(st.characters(blacklist_characters="\n", blacklist_categories=()), max_size=60),
)


@settings(max_examples=400, deadline=2000)
@given(
    st.sampled_from(PATHS), st.lists(st.tuples(st.sampled_from(" +-"), TEXTS), min_size=1, max_size=40), TEXTS
)
def test_any_hunk_is_read_and_only_added_lines_are_told(
    path: str, rows: list[tuple[str, str]], section: str
) -> None:
    hunk = "\n".join(kind + text for kind, text in rows)
    old, new = (sum(kind in f" {mark}" for kind, _ in rows) for mark in "-+")
    text = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -7,{old} +7,{new} @@ {section}\n{hunk}\n"
    side = [(kind, text) for kind, text in rows if kind != "-"]
    for package in changed_packages(parse(text)):
        place = package.line - 7
        assert side[place][0] == "+"
        shown = "\n".join(text for _, text in side[: place + 2])
        assert package.version in shown
        assert _plain(package.name) in _plain(shown)


def _plain(text: str) -> str:
    """Without what a package index makes alike in names."""
    return text.lower().replace("-", "").replace("_", "").replace(".", "")
