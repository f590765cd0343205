"""Which line of a build's log says why it failed. Pure, and about one line at a time; `buildlog` reads the log as a whole.

A pattern that is only a word would find `0 errors`, `--fail-on-error` and `tests/test_errors.py PASSED`. What is looked for is therefore of
three kinds: a tool's own form for a cause, its form for what failed, and bare words, which count only where they are words of failure.
"""

from __future__ import annotations

import re
from enum import IntEnum
from itertools import islice


class Telling(IntEnum):
    """How much a line says of why a build failed."""

    NOTHING = 0
    WORD = 1  # a bare word of failure
    NAMES = 2  # what failed: a test, a target, a command
    CAUSE = 3  # why: an assertion, an exception, a compiler's error


# In lower case. A line without any of these tells nothing, so that most of a log is passed over by `bytes.find` alone: each of them costs
# a pass over the log.
LITERALS = tuple(
    text.encode()
    for text in (
        *(
            "err",
            "fail",
            "fatal",
            "panic",
            "exception",
            "traceback",
            "killed",
            "not ",
            "*** ",
            "e   ",
            "●",
            "×",
        ),
        *(".go:", ".py:", "undefined", "abort", "out of memory", "segmentation fault", "timed out", "denied"),
        *("no such file", "no module named", "non-zero"),
    )
)

_PREFIX = re.compile(
    r"(?:\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?\s+)?(?:[\w.-]{1,40}\s{0,12}\|\s)?"
)  # a clock, a service
_CAUSE = re.compile(
    "|".join(
        (
            r"E {2,}\S",  # pytest
            r"(?:FAIL|ERROR): \w+ \(",  # unittest
            r"\s*--- FAIL: ",  # Go
            r"(?:panic|fatal error): ",
            r"\S+\.go:\d+:\d+: \S",
            r"error(?:\[E\d+\])?: (?!could not compile|test failed|aborting due|process didn't|Recipe)",  # Rust
            r"\s*● (?!Console\b)\S",  # Jest
            r"\s+\d+:\d+\s+error\s+\S",  # eslint
            r"\S+\.py:\d+:(?:\d+:)? (?:error:|[A-Z]{1,4}\d{3,4} )",  # mypy, flake8, ruff
            r"e: \S+\.kts?:",  # Kotlin
            r"[^\s:]\S*:\d+(?::\d+)?: (?:fatal |internal compiler )?error\b",  # gcc, clang, javac
            r"\[ERROR\]\s+(?!->|To see|Re-run|For more|After correcting|\[Help|Failed to execute goal|COMPILATION ERROR)\S",
            r"\s+Failure/Error:",  # RSpec
            r"\s*\d+\) (?:Failure|Error):",  # minitest
            r"rake aborted!",
            r"There (?:was|were) [1-9]\d* (?:failure|error)s?:",  # PHPUnit
            r"PHP (?:Fatal|Parse) error:",
            r"\s*(?:Uncaught )?Error: (?!Process completed|Job failed|script returned)\S",
            r"Killed$",
            r"\S*sh: (?:.*: )?(?:\S+: not found|command not found: \S+)$",
            r"(?:remote: )?fatal: ",
        )
    )
)
_EXCEPTION = re.compile(
    r"\s*(?:Uncaught |Unhandled |Caused by: |Exception in thread \"[^\"]*\" )?(?:[\w$]+[./])*"
    r"[A-Z]\w*(?:Error|Exception)\b(?:\s*\[\w+\])?(?::|$)"
)
# A text that such a line holds anywhere, and where that is not enough, its form.
_ANYWHERE: tuple[tuple[str, re.Pattern[str] | None], ...] = (
    ("Traceback (most recent call last):", None),
    ("panicked at ", None),
    ("undefined reference to ", None),
    ("error ", re.compile(r"\berror TS\d+:|\(\d+,\d+\): (?:fatal )?error \w+:")),  # tsc, MSBuild
    ("ut of memory", None),
    ("OutOfMemoryError", None),
    ("Segmentation fault", None),
    ("Killed", re.compile(r": line \d+: +\d+ Killed\b")),
    ("command not found", None),
    ("is not recognized as an internal or external command", None),
    (": No module named ", None),
    ("*** No rule to make target", None),
    (" FAILED", re.compile(r"^\w[\w.$]* > .*\bFAILED$")),  # Gradle's tests
    ("Error)", re.compile(r"\((?:\w+::)*\w*Error\)$")),  # Ruby
    ("Exception)", re.compile(r"\((?:\w+::)*\w*Exception\)$")),
)
_NAMES = re.compile(
    "|".join(
        (
            r"FAILED \S",  # pytest's summary, unittest's
            r"(?=\S+::\S)\S+ (?:FAILED|ERROR)\b",
            r"test \S+ \.\.\. FAILED",
            r"\s*(?:FAIL|×)\s+\S",
            r"not ok \d",  # TAP
            r"> Task \S+ FAILED",
            r"FAILURE: ",
            r"(?:\S*/)?(?:g?make|ninja)(?:\[\d+\])?: (?:\*\*\* (?!.*\(ignored\))|build stopped)",
            r"FAILED: ",  # ninja
            r"npm (?:ERR!|error) (?!A complete log|code ELIFECYCLE$)\S",
            r"\[ERROR\]\s+\S",
            r"The command '.*' returned a non-zero code",
            r"(?:[Cc]annot |[Cc]ould not )\S",
        )
    )
)
_NAMES_ERROR = re.compile(
    r"(?:ERROR|FATAL|Error|Fatal|error|fatal)(?:: | \[|! )\S|\[(?:ERROR|FATAL|error|fatal)\]|(?:ERROR|FATAL|CRITICAL) [-\[\w]"
)
_NAMES_ANYWHERE = (
    ": error: ",
    ": fatal error: ",
    "timed out",
    "ermission denied",
    "No such file or directory",
    "404 Not Found",
)
# The last words on a job: they say that it failed, and never why.
_OUTCOME = re.compile(
    r"\s*(?:(?:Error|ERROR|error):? )?(?:Process completed with exit code|Job failed: (?:exit code|command terminated)|"
    r"script returned exit code|(?:Bash|PowerShell|Script|Cmd\.exe) exited with code|Finished: FAILURE|"
    r"Stage \".*\" skipped due to|Command failed with exit code|Post job cleanup)"
)
_FINE = re.compile(
    r"\s*+(?:[^\s:]++:\d+(?::\d+)?:\s*+)?(?:[#\[(*]*+\s*+)?(?:npm )?(?:warn(?:ing)?|info|debug|notice|trace|note|hint)\b(?!/)"
    r"|\s*ok\b|test result: ok|\s*[+$>] (?!Task )",
    re.IGNORECASE,
)
PASSING = ("PASSED", "PASS ", "✓", "✔", "√")
_WORD = re.compile(r"err(?:or)?s?|fail(?:ed|ures?|s)?|fatal|exceptions?|aborted", re.IGNORECASE)
_MOST_WORDS = 64  # of a line that are looked at
_NONE = frozenset(("no", "zero", "without", "any", "if", "on", "of", "ignore", "ignored", "ignoring"))
_UNSET = re.compile(
    r"[\"']?\s*[:=]+\s*[\"'(]?(?:0\b|false|none|null|no\b|true|\[\]|\{\})|\s*\(0\)|\s+0\b", re.IGNORECASE
)


def telling(line: str, beyond: Telling = Telling.NOTHING) -> Telling:
    """How much a line of a log, without colours and times, says of why the build failed. Whoever needs no more than what goes `beyond` a
    degree gets `NOTHING` for the others."""
    text = line
    if "|" in line or line[:3].lstrip("[")[:2].isdecimal():
        prefix = _PREFIX.match(line)
        text = line[prefix.end() :] if prefix else line
    if _OUTCOME.match(text):
        return Telling.NOTHING
    if not text.startswith("E  ") and (
        _FINE.match(text) or text.endswith(("... ok", " OK")) or any(mark in text for mark in PASSING)
    ):
        return Telling.NOTHING
    if _is_cause(text):
        return Telling.CAUSE
    if beyond < Telling.NAMES and _names(text):
        return Telling.NAMES
    return Telling.WORD if beyond < Telling.WORD and _has_word(text) else Telling.NOTHING


def _is_cause(text: str) -> bool:
    if _CAUSE.match(text):
        return True
    if ("Error" in text or "Exception" in text) and _EXCEPTION.match(text):
        return True
    return any(mark in text and (form is None or form.search(text)) for mark, form in _ANYWHERE)


def _names(text: str) -> bool:
    if _NAMES.match(text) or any(mark in text for mark in _NAMES_ANYWHERE):
        return True
    return _NAMES_ERROR.match(text) is not None and _has_word(text)


def _has_word(text: str) -> bool:
    """Whether a word of failure stands there as one: not in a name, a path or an option, and not as one of which there are none."""
    for found in islice(_WORD.finditer(text), _MOST_WORDS):
        start, end = found.span()
        before, after = text[start - 1 : start] if start else "", text[end : end + 2]
        if before.isalnum() or (before and before in "_-./@\\"):
            continue
        if (
            after[:1].isalnum()
            or (after and after[0] in "_-/(")
            or (after[:1] == "." and after[1:].isalnum())
        ):
            continue
        words = [word.strip("(,:;\"'").lower() for word in text[max(0, start - 40) : start].split()[-2:]]
        if words and words[-1].isdecimal():
            if int(words[-1]) == 0:
                continue
        elif any(word in _NONE or word == "0" for word in words):
            continue
        if _UNSET.match(text, end):
            continue
        return True
    return False


_HEADING = re.compile(
    r"_{3,} .+ _{3,}$|\s*● |\s*(?:FAIL|×) |---- .+ stdout ----$|=== RUN |> Task |\s+\d+\) |#\d+ \[|(?:FAIL|ERROR): "
)


def is_heading(line: str) -> bool:
    """Whether a line names what the lines below it are about."""
    return _HEADING.match(line) is not None
