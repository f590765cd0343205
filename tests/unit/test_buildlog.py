"""The first error of a build's log: of the tools and hosts people use, however the log is cut, and however long it is."""

from __future__ import annotations

import textwrap
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codespar.domain.buildlog import WIDEST, Excerpt
from codespar.domain.logerrors import Telling, telling

STAMP = "2024-05-01T10:00:00.1234567Z "


def log(text: str, *, stamped: bool = False) -> bytes:
    lines = textwrap.dedent(text).strip("\n").split("\n")
    return "".join(f"{STAMP if stamped else ''}{line}\n" for line in lines).encode()


def github(*steps: tuple[str, str, int]) -> bytes:
    """A job's log as GitHub Actions gives it: of each step its command, output and exit code."""
    parts = ["\ufeff" + STAMP + "Current runner version: '2.316.0'"]
    for command, output, code in steps:
        first = command.split("\n")[0]
        header = [
            f"##[group]Run {first}",
            *(f"\x1b[36;1m{line}\x1b[0m" for line in command.split("\n")),
            "shell: /usr/bin/bash -e {0}",
            "##[endgroup]",
        ]
        parts += [STAMP + line for line in (*header, *textwrap.dedent(output).strip("\n").split("\n"))]
        if code:
            parts.append(f"{STAMP}##[error]Process completed with exit code {code}.")
    parts += [
        f"{STAMP}{line}"
        for line in (
            "Post job cleanup.",
            "[command]/usr/bin/git version",
            "git version 2.43.2",
            "Cleaning up orphan processes",
        )
    ]
    return "\n".join(parts).encode() + b"\n"


def read(content: bytes, step: str = "", most: int = 25) -> tuple[str, ...]:
    excerpt = Excerpt(step, most)
    excerpt.feed(content)
    return excerpt.lines()


PYTEST = """
    ============================= test session starts ==============================
    collected 3 items

    tests/test_errors.py::test_error_is_raised \x1b[32mPASSED\x1b[0m                         [ 33%]
    tests/test_sum.py::test_adds \x1b[31mFAILED\x1b[0m                                  [ 66%]

    =================================== FAILURES ===================================
    __________________________________ test_adds ___________________________________

        def test_adds():
    >       assert add(1, 2) == 4
    \x1b[1m\x1b[31mE       assert 3 == 4\x1b[0m
    \x1b[1m\x1b[31mE        +  where 3 = add(1, 2)\x1b[0m

    tests/test_sum.py:5: AssertionError
    =========================== short test summary info ============================
    FAILED tests/test_sum.py::test_adds - assert 3 == 4
    ========================= 1 failed, 2 passed in 0.12s ==========================
"""

# name: the log, what its excerpt must show, and what it must not
LOGS: dict[str, tuple[bytes, list[str], list[str]]] = {
    "pytest at GitHub": (
        github(
            ("pip install -e .", "Collecting pytest\nSuccessfully installed errors-1.0", 0),
            ('pytest -q || { echo "error: tests failed"; exit 1; }', PYTEST, 1),
        ),
        ["__ test_adds __", "E       assert 3 == 4", "FAILED tests/test_sum.py::test_adds - assert 3 == 4"],
        ["pip install", "echo", "Post job", "orphan", "2024-05-01", "\x1b"],
    ),
    "a Python traceback": (
        log("""
            $ python manage.py migrate
            Operations to perform: all
            Traceback (most recent call last):
              File "/srv/manage.py", line 22, in <module>
                main()
              File "/srv/app/db.py", line 9, in connect
                raise ConnectionError("no route to db")
            ConnectionError: no route to db
            Cleaning up
        """),
        ["Traceback (most recent call last):", "ConnectionError: no route to db"],
        [],
    ),
    "unittest": (
        log("""
            test_one (tests.T.test_one) ... ok
            test_two (tests.T.test_two) ... FAIL

            ======================================================================
            FAIL: test_two (tests.T.test_two)
            ----------------------------------------------------------------------
            Traceback (most recent call last):
              File "/app/tests.py", line 9, in test_two
                self.assertEqual(1, 2)
            AssertionError: 1 != 2

            ----------------------------------------------------------------------
            Ran 2 tests in 0.001s

            FAILED (failures=1)
        """),
        ["FAIL: test_two (tests.T.test_two)", "AssertionError: 1 != 2"],
        [],
    ),
    "go test": (
        log("""
            ok  \texample.org/errors\t0.003s
            === RUN   TestSum
                sum_test.go:12: got 3, want 4
            --- FAIL: TestSum (0.00s)
            FAIL
            FAIL\texample.org/sum\t0.004s
        """),
        ["sum_test.go:12: got 3, want 4", "--- FAIL: TestSum (0.00s)"],
        ["example.org/errors"],
    ),
    "a Go panic": (
        log("""
            starting server, on_error=exit
            panic: runtime error: index out of range [3] with length 3

            goroutine 1 [running]:
            main.main()
            \t/app/main.go:12 +0x1d
            exit status 2
        """),
        ["panic: runtime error: index out of range [3] with length 3", "/app/main.go:12"],
        [],
    ),
    "a Go build": (
        log("""
            go: downloading github.com/pkg/errors v0.9.1
            # example.org/app
            ./main.go:10:2: undefined: foo
            ./main.go:14:9: cannot use x (variable of type int) as string value
        """),
        ["./main.go:10:2: undefined: foo", "./main.go:14:9"],
        [],
    ),
    "a Rust build": (
        log("""
               Compiling thiserror v1.0.50
            warning: unused variable: `error`
             --> src/lib.rs:2:9
            error[E0308]: mismatched types
              --> src/main.rs:4:18
               |
             4 |     let x: i32 = "a";
               |            ---   ^^^ expected `i32`, found `&str`
            error: could not compile `app` (bin "app") due to 1 previous error
        """),
        ["error[E0308]: mismatched types", 'let x: i32 = "a";'],
        [],
    ),
    "cargo test": (
        log("""
            running 2 tests
            test tests::errors_are_told ... ok
            test tests::adds ... FAILED

            failures:

            ---- tests::adds stdout ----
            thread 'tests::adds' panicked at src/lib.rs:10:9:
            assertion `left == right` failed
              left: 3
             right: 4

            test result: FAILED. 1 passed; 1 failed; 0 ignored
        """),
        ["thread 'tests::adds' panicked at src/lib.rs:10:9:", "left: 3", "right: 4"],
        ["errors_are_told"],
    ),
    "Jest": (
        log("""
            PASS src/errors.test.js
            FAIL src/sum.test.js
              ✓ handles errors (2 ms)
              ✕ adds (5 ms)

              ● adds

                expect(received).toBe(expected)

                Expected: 4
                Received: 3

            Tests:       1 failed, 1 passed, 2 total
        """),
        ["● adds", "Expected: 4", "Received: 3"],
        [],
    ),
    "Vitest": (
        log("""
             ✓ src/error.test.ts (3 tests) 4ms
             ❯ src/sum.test.ts (1 test | 1 failed) 6ms
            ⎯⎯⎯⎯⎯⎯⎯ Failed Tests 1 ⎯⎯⎯⎯⎯⎯⎯
             FAIL  src/sum.test.ts > adds
            AssertionError: expected 3 to be 4 // Object.is equality
             ❯ src/sum.test.ts:5:18
        """),
        ["FAIL  src/sum.test.ts > adds", "AssertionError: expected 3 to be 4"],
        [],
    ),
    "tsc behind a problem matcher": (
        github(("npx tsc --noEmit", "##[error]src/a.ts(3,5): error TS2322: Type 'x' is not assignable.", 2)),
        ["src/a.ts(3,5): error TS2322: Type 'x' is not assignable."],
        ["##["],
    ),
    "eslint": (
        log("""
            /app/src/error.js
               1:1   warning  Unexpected console statement   no-console
               3:10  error    'x' is not defined             no-undef

            ✖ 2 problems (1 error, 1 warning)
            npm ERR! code ELIFECYCLE
        """),
        ["   3:10  error    'x' is not defined             no-undef", "/app/src/error.js"],
        [],
    ),
    "Maven": (
        log("""
            [INFO] Scanning for projects...
            [WARNING] error-prone is out of date
            [INFO] BUILD FAILURE
            [ERROR] COMPILATION ERROR :
            [ERROR] /app/src/main/java/A.java:[10,5] cannot find symbol
            [ERROR]   symbol:   class Foo
            [ERROR] -> [Help 1]
        """),
        ["[ERROR] /app/src/main/java/A.java:[10,5] cannot find symbol"],
        [],
    ),
    "Gradle": (
        log("""
            > Task :compileJava UP-TO-DATE
            > Task :test

            SumTest > adds() FAILED
                org.opentest4j.AssertionFailedError at SumTest.java:9

            2 tests completed, 1 failed

            > Task :test FAILED

            FAILURE: Build failed with an exception.
        """),
        ["SumTest > adds() FAILED", "FAILURE: Build failed with an exception."],
        [],
    ),
    "gcc and make": (
        log("""
            cc -Werror -c -o src/error.o src/error.c
            src/a.c: In function 'main':
            src/a.c:5:3: error: expected ';' before '}' token
                5 |   return 0
            make[1]: *** [Makefile:12: src/a.o] Error 1
            make: *** [all] Error 2
        """),
        ["src/a.c:5:3: error: expected ';' before '}' token", "make: *** [all] Error 2"],
        [],
    ),
    "npm": (
        log("""
            npm warn deprecated node-errors@1.0.0
            npm error code ERESOLVE
            npm error ERESOLVE unable to resolve dependency tree
            npm error A complete log of this run can be found in: /root/.npm/_logs/x.log
        """),
        ["npm error ERESOLVE unable to resolve dependency tree"],
        [],
    ),
    "RSpec": (
        log("""
            Failures:

              1) Cart adds an item
                 Failure/Error: expect(cart.size).to eq(2)

                   expected: 2
                        got: 1
                 # ./spec/cart_spec.rb:8

            1 example, 1 failure
        """),
        ["  1) Cart adds an item", "expected: 2", "got: 1"],
        [],
    ),
    "docker build": (
        log("""
            #9 [build 3/5] RUN pip install -r requirements.txt
            #9 1.204 Collecting flask==99
            #9 1.530 ERROR: No matching distribution found for flask==99
            #9 ERROR: process "/bin/sh -c pip install -r requirements.txt" did not complete successfully: exit code: 1
            ------
             > [build 3/5] RUN pip install -r requirements.txt:
        """),
        ["ERROR: No matching distribution found for flask==99"],
        [],
    ),
    "out of memory": (
        github(
            (
                "make bundle",
                "bundling\n/home/runner/w.sh: line 3:  2117 Killed                  node b.js",
                137,
            )
        ),
        ["2117 Killed", "Process completed with exit code 137."],
        [],
    ),
    "a missing command": (
        log("+ poetry install\n/bin/sh: 1: poetry: not found\nscript returned exit code 127"),
        ["/bin/sh: 1: poetry: not found"],
        [],
    ),
    "git": (
        log(
            "Cloning into 'app'...\nfatal: could not read Username for 'https://example.org': terminal prompts disabled"
        ),
        ["fatal: could not read Username"],
        [],
    ),
    "Jenkins": (
        log("""
            [Pipeline] { (Build)
            [Pipeline] sh
            + make error-page
            done, errors: 0
            [Pipeline] }
            [Pipeline] { (Test)
            [Pipeline] sh
            + ./gradlew check
            src/A.java:3: error: ';' expected
            [Pipeline] }
            [Pipeline] // stage
            Stage "Deploy" skipped due to earlier failure(s)
            [Pipeline] End of Pipeline
            ERROR: script returned exit code 1
            Finished: FAILURE
        """),
        ["src/A.java:3: error: ';' expected"],
        ["make error-page"],
    ),
    "GitLab": (
        b"Running with gitlab-runner 16.9.0\n"
        b"section_start:1714557600:prepare_script\r\x1b[0K\x1b[0KPreparing environment\x1b[0;m\n"
        b"section_end:1714557601:prepare_script\r\x1b[0Ksection_start:1714557601:step_script\r\x1b[0K\x1b[0K"
        b'Executing "step_script"\x1b[0;m\n'
        b'\x1b[32;1m$ go vet ./...\x1b[0;m\n./main.go:3:8: "os" imported and not used\n'
        b"section_end:1714557610:step_script\r\x1b[0K\x1b[31;1mERROR: Job failed: exit code 1\n\x1b[0;m\n",
        ['./main.go:3:8: "os" imported and not used', "$ go vet ./..."],
        ["section_", "Preparing"],
    ),
    "an action that refuses": (
        github(("actions/deploy@v1", "##[error]Input required and not supplied: token", 0)),
        ["Input required and not supplied: token"],
        ["##["],
    ),
    "an annotation": (
        log("::error file=src/a.py,line=7,col=2::Missing docstring\n"),
        ["src/a.py:7: Missing docstring"],
        ["::"],
    ),
    "a job that took too long": (
        github(("sleep 9999", "waiting\n##[error]The operation was canceled.", 0)),
        ["waiting", "The operation was canceled."],
        [],
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_the_first_error_of_a_tool_is_found_and_told_without_noise(name: str) -> None:
    content, shown, hidden = LOGS[name]
    found = read(content)
    text = "\n".join(found)
    for wanted in shown:
        assert wanted in text, text
    for unwanted in hidden:
        assert unwanted not in text, text
    assert len(found) <= 25


@pytest.mark.parametrize(
    "line",
    [
        "Compiled with 0 errors and 0 failures",
        "error_count=0",
        "errors: 0, warnings: 3",
        "failed: false",
        "ruff check --fail-on-error --exit-non-zero src/errors.py",
        "  downloading errors.py (3 kB)",
        "tests/test_errors.py::test_fails_with_error PASSED [ 10%]",
        "ok 3 - reports an error",
        "src/a.c:3:5: warning: unused variable 'error' [-Werror=unused]",
        "warning: the error type changed",
        "npm warn deprecated error-lib@1.0.0",
        "[INFO] error handling enabled",
        "--- PASS: TestError (0.00s)",
        "Copying internal/errors/failure.go to /out",
        "12 passed, 0 failed",
        "make[1]: [clean] ok",
        "found no errors",
    ],
)
def test_a_false_friend_tells_nothing(line: str) -> None:
    assert telling(line) is Telling.NOTHING


@pytest.mark.parametrize(
    ("line", "degree"),
    [
        ("3 errors found", Telling.WORD),
        ("0 passed, 1 failed", Telling.WORD),
        ("10 errors", Telling.WORD),
        ("ERROR: something broke", Telling.NAMES),
        ("make: *** [all] Error 2", Telling.NAMES),
        ("12:30:01 src/a.c:1:1: error: x", Telling.CAUSE),
        ("web-1  | ValueError: bad", Telling.CAUSE),
    ],
)
def test_a_line_is_weighed_by_how_much_it_tells(line: str, degree: Telling) -> None:
    assert telling(line) is degree


def test_the_step_that_failed_is_read_and_not_the_noise_of_one_that_passed() -> None:
    content = github(
        ("./setup", "fatal: not a git repository\ngoing on without it", 0),
        ("make", "src/a.c:5:3: error: expected ';'", 2),
        ("./report", "src/b.c:1:1: error: told again", 0),
    )
    assert "src/a.c:5:3: error: expected ';'" in read(content)
    assert not any("fatal" in line or "src/b.c" in line for line in read(content))


@pytest.mark.parametrize("step", ["make lint", "Run make lint", "run  MAKE lint"])
def test_the_named_step_is_preferred_to_one_that_failed_before_it(step: str) -> None:
    content = github(
        ("make docs", "docs.c:1:1: error: allowed to fail", 2),
        ("make lint", "lint.c:2:2: error: this one", 2),
    )
    assert any("lint.c" in line for line in read(content, step))
    assert any("docs.c" in line for line in read(content))
    assert any("docs.c" in line for line in read(content, "no such step"))


def test_without_an_error_the_last_lines_of_the_step_that_failed_are_given() -> None:
    output = "\n".join(f"line {number}" for number in range(200))
    found = read(github(("./run", output, 3), ("./after", "all is well", 0)), most=10)
    assert found[-1] == "Process completed with exit code 3." and found[-2] == "line 199" and len(found) == 10


def test_an_empty_log_and_one_of_blank_lines_give_nothing() -> None:
    assert read(b"") == read(b"\n\r\n \n\x1b[0m\n") == ()


def test_a_progress_bar_is_its_last_state() -> None:
    bar = b"".join(b"\rfetching %d%% " % part for part in range(101))
    assert read(bar + b"\r\nE   assert 0\n") == ("fetching 100%", "E   assert 0")
    assert read(b"10%\r50%\r\x1b[K\r\n") == ("50%",)


def test_lines_are_cut_and_repeats_told_once_and_no_more_than_asked_for() -> None:
    noisy = b"retrying the connection to the host\n" * 50
    found = read(noisy + b"error: " + b"x" * 5000 + b"\n" + noisy, most=4)
    assert found[0] == "retrying the connection to the host" and len(found) == 2 and len(found[1]) == WIDEST
    assert len(read(b"".join(b"a.c:%d:1: error: no\n" % n for n in range(99)), most=7)) == 7
    assert read(b"before\nerror: x\nafter\n", most=1) == ("error: x",)


def test_a_deep_traceback_keeps_its_ends() -> None:
    frames = "".join(f'  File "f{n}.py", line {n}, in f\n    call{n}()\n' for n in range(300))
    found = read(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n".encode())
    assert found[0].startswith("Traceback") and found[-1] == "RecursionError: too deep"
    assert "    call299()" in found and len(found) <= 25


def test_more_may_be_fed_after_the_lines_were_asked_for() -> None:
    excerpt = Excerpt()
    excerpt.feed(b"building\nsrc/a.c:1:1: err")
    assert "building" in excerpt.lines()
    excerpt.feed(b"or: bad \xe2\x9c")
    excerpt.feed(b"\x95\n")
    assert excerpt.lines() == ("building", "src/a.c:1:1: error: bad ✕")


PIECES = (
    *(content[start : start + 40] for content, _, _ in LOGS.values() for start in range(0, len(content), 37)),
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\xe2\x97",
        b"\x1b[",
        b"\xff",
        b"section_start:1:x\r\x1b[0K",
        b"##[group]Run x\n",
    ),
    *(
        b"##[endgroup]\n",
        b"##[error]Process completed with exit code 1.\n",
        b"x" * 2000,
        b"\r" * 3000,
        b" " * 9000,
    ),
    *(b"a line\n" * 6000, b"0 errors\n" * 4000, b"E   assert\n"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.data())
def test_what_is_found_does_not_depend_on_where_the_log_was_cut(
    parts: list[bytes], data: st.DataObject
) -> None:
    content = b"".join(parts)
    whole = read(content, "x")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=30)))
    excerpt = Excerpt("x")
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        excerpt.feed(content[start:end])
    assert excerpt.lines() == whole
    assert len(whole) <= 25 and all(len(line) <= WIDEST and "\n" not in line for line in whole)


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_comes_byte_by_byte_gives_the_same(name: str) -> None:
    content = LOGS[name][0]
    excerpt = Excerpt()
    for place in range(len(content)):
        excerpt.feed(content[place : place + 1])
    assert excerpt.lines() == read(content)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_read(content: bytes) -> None:
    assert all(line.strip() for line in read(content))


STORMS: dict[str, bytes] = {
    "marks of nothing": b"##[\n",
    "steps": b"##[group]Run x\n##[endgroup]\n",
    "steps with long tails": (b"x" * 1400 + b"\n") * 48 + b"section_end:\n",
    "steps that each have an error": b"Post job cleanup\nE   x\n" + b"y\n" * 30,
    "sections without lines": b"section_start:1:x\r\x1b[0K",
    "annotations": b"::error::\n",
    "blank lines of a traceback": b"Traceback (most recent call last):\n" + b"\n" * 500_000,
    "words": b"err\n",
    "the rarest letter": "×\n".encode(),
    "words of nothing": b"0 err " * 240 + b"\n",
    "spaces": b" " * 1490 + b"err\n",
    "colons": b":" * 1400 + b"err\n",
    "carriage returns": b" \r" + b"\x1b[m\r" * 1000 + b" \n",
    "overwritten words": b"err\rx\n",
}


@pytest.mark.parametrize("name", STORMS)
def test_no_log_costs_more_than_the_work_that_it_was_given(name: str) -> None:
    piece = STORMS[name] * (2**20 // len(STORMS[name]) + 1)
    excerpt = Excerpt(work=2**19)
    began = time.process_time()
    for _ in range(6):
        excerpt.feed(piece)
    assert time.process_time() - began < 3.0
    excerpt.feed(b"src/a.c:1:1: error: x\nthe end\n")
    assert len(excerpt.lines()) <= 25


def test_a_noisy_step_leaves_work_for_those_after_it() -> None:
    noise = "0 errors\n" * 20_000
    content = github(
        ("./noise", noise, 0), ("./noise", noise, 0), ("make", "src/a.c:5:3: error: no\n" + "on\n" * 60, 2)
    )
    excerpt = Excerpt(work=2**19)
    excerpt.feed(content)
    assert "src/a.c:5:3: error: no" in excerpt.lines()


def test_a_log_of_200_megabytes_is_read_in_little_memory() -> None:
    line = STAMP.encode() + b"Downloading package foo-1.2.3 from the registry at example.org (12 kB)\n"
    block = line * 700
    endless = b"x" * 10_000_000
    excerpt = Excerpt()
    tracemalloc.start()
    try:
        excerpt.feed(github(("make", "src/a.c:5:3: error: expected ';'", 2)))
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200 * 2**20 // len(block)):
            excerpt.feed(block)
        excerpt.feed(endless)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "src/a.c:5:3: error: expected ';'" in excerpt.lines()
    assert peak - before < 250_000, peak - before
