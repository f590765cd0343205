"""Reading SARIF: what tools write, and what somebody may write to deceive or to exhaust."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.domain.reviews import Category, Finding, Severity
from codespar.sandbox.base import OutputRefused
from codespar.sandbox.sarif import FINDINGS, RESULTS, RUNS, SARIF_BYTES, SarifLog, read

ROOT = "/tmp/work"


def place(uri: str = "src/a.py", **region: Any) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region or {"startLine": 3}}}


def result(**given: Any) -> dict[str, Any]:
    return {"ruleId": "R1", "message": {"text": "wrong"}, "locations": [place()]} | given


def log(*results: Any, driver: dict[str, Any] | None = None, **run: Any) -> bytes:
    tool = {"driver": {"name": "tool", "version": "1.2"} | (driver or {})}
    return json.dumps({"version": "2.1.0", "runs": [{"tool": tool, "results": list(results)} | run]}).encode()


def findings(*results: Any, analyser: str = "mine", lines: Any = None, **run: Any) -> tuple[Finding, ...]:
    return read(log(*results, **run), analyser=analyser, root=ROOT, lines=lines).findings


def one(given: dict[str, Any], **run: Any) -> Finding:
    (found,) = findings(given, **run)
    return found


def test_a_result_becomes_a_finding_with_the_tools_version() -> None:
    said = read(log(result(level="error")), analyser="mine", root=ROOT, lines={"src/a.py": {3: "x = 1"}})
    assert said == SarifLog("1.2", said.findings, "")
    (found,) = said.findings
    assert (found.source, found.path, found.start_line, found.end_line) == ("mine:R1", "src/a.py", 3, 3)
    assert (found.title, found.why, found.line_text) == ("wrong", "", "x = 1")
    assert (found.severity, found.category) == (Severity.HIGH, Category.CORRECTNESS)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("a%20b.py", "a b.py"),
        ("./src//a.py", "src/a.py"),
        ("src/../b.py", "b.py"),
        ("file:///tmp/work/a.py", "a.py"),
        ("file://localhost/tmp/work/a.py", "a.py"),
        ("FILE:/tmp/work/a.py", "a.py"),
        ("/tmp/work/%C3%A9.py", "é.py"),
        ("file:///tmp/work/../../etc/passwd", None),
        ("file:///tmp/workshop/a.py", None),
        ("file://elsewhere/tmp/work/a.py", None),
        ("file:////tmp/work/a.py", None),
        ("/etc/passwd", None),
        ("../a.py", None),
        ("%2e%2e/a.py", None),
        ("src/%2e%2e/%2e%2e/a.py", None),
        ("https://example.org/a.py", None),
        ("javascript:alert(1)", None),
        (".git/config", None),
        ("a%00b.py", None),
        ("a%0Ab.py", None),
        ("%ff.py", None),
        ("", None),
        (".", None),
        ("x" * 5000, None),
    ],
)
def test_a_path_lies_below_the_work_tree_or_the_result_is_dropped(uri: str, path: str | None) -> None:
    assert [found.path for found in findings(result(locations=[place(uri)]))] == ([path] if path else [])


def test_base_uris_are_followed_and_loops_end() -> None:
    bases = {
        "SRC": {"uri": "src/", "uriBaseId": "ROOT"},
        "ROOT": {"uri": "file:///tmp/work/"},
        "OUT": {"uri": "file:///etc/"},
        "LOOP": {"uri": "x/", "uriBaseId": "LOOP"},
    }
    for name, path in (("SRC", "src/a.py"), ("NONE", "a.py"), ("OUT", None)):
        where = {
            "physicalLocation": {
                "artifactLocation": {"uri": "a.py", "uriBaseId": name},
                "region": {"startLine": 1},
            }
        }
        found = findings(result(locations=[where]), originalUriBaseIds=bases)
        assert [one.path for one in found] == ([path] if path else [])
    loop = {"physicalLocation": {"artifactLocation": {"uri": "a.py", "uriBaseId": "LOOP"}}}
    assert len(findings(result(locations=[loop]), originalUriBaseIds=bases)) == 1
    indexed = {"physicalLocation": {"artifactLocation": {"index": 0}, "region": {"startLine": 1}}}
    assert one(result(locations=[indexed]), artifacts=[{"location": {"uri": "b.py"}}]).path == "b.py"


@pytest.mark.parametrize(
    ("region", "lines"),
    [
        ({"startLine": 3}, (3, 3)),
        ({"startLine": 3, "endLine": 5}, (3, 5)),
        ({"startLine": 3, "endLine": 5, "endColumn": 1}, (3, 4)),
        ({"startLine": 3, "endLine": 2}, (3, 3)),
        ({"startLine": 0, "endLine": 0}, (1, 1)),
        ({"charOffset": 12}, (1, 1)),
        ({"startLine": 3, "endLine": 10**30}, (3, 3)),
        ({"startLine": -1}, None),
        ({"startLine": 10**30}, None),
        ({"startLine": "3"}, None),
        ({"startLine": True}, None),
        ({"startLine": 1.5}, None),
    ],
)
def test_regions_are_lines_or_the_result_is_dropped(
    region: dict[str, Any], lines: tuple[int, int] | None
) -> None:
    found = findings(result(locations=[place(**region)]))
    assert [(each.start_line, each.end_line) for each in found] == ([lines] if lines else [])


def test_severity_is_the_score_else_the_level_else_the_rules_default() -> None:
    rule = {"id": "R1", "defaultConfiguration": {"level": "note"}}
    assert one(result()).severity is Severity.MEDIUM
    assert one(result(), driver={"rules": [rule]}).severity is Severity.LOW
    assert one(result(level="error"), driver={"rules": [rule]}).severity is Severity.HIGH
    assert one(result(level="none")).severity is Severity.INFO
    scores = (
        ("9.8", Severity.CRITICAL),
        (7, Severity.HIGH),
        ("4.0", Severity.MEDIUM),
        ("0.5", Severity.LOW),
        ("0", Severity.INFO),
    )
    for score, severity in scores:
        scored = rule | {"properties": {"security-severity": score}}
        assert one(result(level="error"), driver={"rules": [scored]}).severity is severity
    for nonsense in ("NaN", "inf", "x", "9" * 400, [], True):
        scored = rule | {"properties": {"security-severity": nonsense}}
        assert one(result(), driver={"rules": [scored]}).severity is Severity.LOW


@pytest.mark.parametrize(
    ("code", "severity", "category"),
    [
        ("invalid-syntax", Severity.HIGH, Category.CORRECTNESS),
        ("F821", Severity.HIGH, Category.CORRECTNESS),
        ("F401", Severity.LOW, Category.STYLE),
        ("F632", Severity.MEDIUM, Category.CORRECTNESS),
        ("B006", Severity.MEDIUM, Category.CORRECTNESS),
        ("S608", Severity.MEDIUM, Category.SECURITY),
        ("SIM102", Severity.INFO, Category.STYLE),
        ("FURB105", Severity.INFO, Category.STYLE),
        ("ASYNC251", Severity.MEDIUM, Category.PERFORMANCE),
        ("E501", Severity.INFO, Category.STYLE),
        ("UP007", Severity.INFO, Category.STYLE),
        ("", Severity.INFO, Category.STYLE),
    ],
)
def test_ruff_says_error_of_everything_and_is_weighed_by_rule(
    code: str, severity: Severity, category: Category
) -> None:
    found = one(result(ruleId=code, level="error"), driver={"name": "ruff"})
    assert (found.severity, found.category) == (severity, category)


@pytest.mark.parametrize(
    ("severity", "confidence", "expected"),
    [
        ("HIGH", "HIGH", Severity.HIGH),
        ("HIGH", "LOW", Severity.MEDIUM),
        ("MEDIUM", "MEDIUM", Severity.MEDIUM),
        ("MEDIUM", "LOW", Severity.LOW),
        ("LOW", "LOW", Severity.INFO),
    ],
)
def test_bandit_counts_for_less_where_it_is_not_sure(
    severity: str, confidence: str, expected: Severity
) -> None:
    properties = {"issue_severity": severity, "issue_confidence": confidence}
    found = one(result(properties=properties), driver={"name": "Bandit"}, analyser="bandit")
    assert (found.severity, found.category) == (expected, Category.SECURITY)


@pytest.mark.parametrize(
    ("tags", "category"),
    [
        (["security", "CWE-89: SQL Injection"], Category.SECURITY),
        (["external/cwe/cwe-089"], Category.SECURITY),
        (["security", "secret"], Category.SECRET),
        (["Performance"], Category.PERFORMANCE),
        (["maintainability"], Category.STYLE),
        (["reliability"], Category.CORRECTNESS),
        (["security", "dependency"], Category.DEPENDENCY),
        (["latest"], Category.CORRECTNESS),
        ([3, None], Category.CORRECTNESS),
    ],
)
def test_the_category_follows_the_tags(tags: list[Any], category: Category) -> None:
    assert one(result(), driver={"rules": [{"id": "R1", "properties": {"tags": tags}}]}).category is category


def test_a_secret_is_known_by_its_digest_and_never_carried() -> None:
    region = {"startLine": 3, "snippet": {"text": "password = 'hunter2'"}}
    found = one(result(locations=[place(**region)]), analyser="gitleaks")
    assert found.category is Category.SECRET
    assert "hunter2" not in found.model_dump_json() and found.line_text.startswith("sha256:")
    other = one(result(locations=[place(startLine=9, snippet=region["snippet"])]), analyser="gitleaks")
    assert found.fingerprint == other.fingerprint


def test_what_is_suppressed_is_dropped_when_mild_and_kept_low_when_not() -> None:
    suppressions = [{"kind": "inSource"}]
    assert findings(result(level="note", suppressions=suppressions)) == ()
    kept = one(result(level="error", suppressions=suppressions))
    assert kept.severity is Severity.LOW and "suppressed" in kept.why
    rejected = one(result(level="error", suppressions=[{"kind": "inSource", "status": "rejected"}]))
    assert rejected.severity is Severity.HIGH


def test_results_that_are_no_findings_are_passed_over() -> None:
    assert findings(result(kind="pass"), result(kind="notApplicable"), result(baselineState="absent")) == ()
    assert findings(result(locations=[]), result(locations=None), "x", None, [], 3) == ()


def test_title_and_reason_come_from_the_message_and_its_rule() -> None:
    found = one(result(message={"text": "First\tline\x1b[31m\nSecond line\r\n"}))
    assert (found.title, found.why) == ("First line[31m", "Second line")
    rule = {
        "id": "R1",
        "messageStrings": {"default": {"text": "{0} is not {1} {7}"}},
        "fullDescription": {"text": "Why it matters"},
        "helpUri": "https://example.org/R1",
    }
    found = one(result(message={"id": "default", "arguments": ["a", "b"]}), driver={"rules": [rule]})
    assert (found.title, found.why) == ("a is not b {7}", "Why it matters\n\nhttps://example.org/R1")
    assert one(result(message=None)).title == "R1"
    assert one(result(message={"text": " \n "}, ruleId=None)).title == "mine"
    for bad in ("javascript:alert(1)", "https://example.org/) [x](http://evil"):
        assert one(result(), driver={"rules": [{"id": "R1", "helpUri": bad}]}).why == ""
    found = one(result(message={"text": "word " * 5000}))
    assert len(found.title) == 300 and found.title.endswith("…") and len(found.why) <= 4000


def fix(deleted: dict[str, int], text: str, uri: str = "src/a.py") -> dict[str, Any]:
    replacement = {"deletedRegion": deleted, "insertedContent": {"text": text}}
    return {"artifactChanges": [{"artifactLocation": {"uri": uri}, "replacements": [replacement]}]}


@pytest.mark.parametrize(
    ("deleted", "text", "expected"),
    [
        ({"startLine": 3, "startColumn": 1, "endLine": 5, "endColumn": 1}, "new\n", (4, "new")),
        ({"startLine": 3, "startColumn": 1, "endLine": 4, "endColumn": 1}, "", (3, "")),
        ({"startLine": 3}, "new", (3, "new")),
        ({"startLine": 3, "endLine": 4}, "new", (4, "new")),
        ({"startLine": 3, "startColumn": 6, "endColumn": 8}, "==", (3, "if x == 1:")),
        ({"startLine": 3, "startColumn": 4, "endColumn": 60}, "==", None),
        ({"startLine": 3, "startColumn": 2, "endLine": 5, "endColumn": 1}, "new\n", None),
        ({"startLine": 3, "startColumn": 1, "endLine": 5, "endColumn": 1}, "new", None),
        ({"startLine": 2}, "new", None),
        ({"startLine": 3, "endLine": 3000}, "new", None),
        ({"startLine": 3, "endLine": 1}, "new", None),
        ({}, "new", None),
    ],
)
def test_a_fix_is_a_suggestion_only_when_it_replaces_the_findings_lines(
    deleted: dict[str, int], text: str, expected: tuple[int, str] | None
) -> None:
    where = place(startLine=3)
    found = one(result(locations=[where], fixes=[fix(deleted, text)]), lines={"src/a.py": {3: "if x is 1:"}})
    assert (found.end_line, found.suggestion) == (expected or (3, None))


def test_a_fix_of_another_file_or_of_several_places_is_no_suggestion() -> None:
    good = fix({"startLine": 3}, "new")
    two = {"artifactChanges": good["artifactChanges"] * 2}
    for bad in (
        fix({"startLine": 3}, "new", "src/b.py"),
        two,
        {},
        None,
        "x",
        fix({"startLine": 3}, "x" * 9000),
    ):
        assert one(result(fixes=[bad])).suggestion is None


def test_a_tool_that_says_it_failed_is_believed() -> None:
    note = {"message": {"text": "cannot parse\nthe settings"}}
    failed = log(invocations=[{"executionSuccessful": False, "toolExecutionNotifications": [note]}])
    assert read(failed, analyser="mine", root=ROOT).problem == "cannot parse the settings"
    silent = log(invocations=[{"executionSuccessful": False}])
    assert read(silent, analyser="mine", root=ROOT).problem == "it says that it failed"


def test_the_files_that_a_tool_passed_over_are_named_with_its_reason() -> None:
    def note(path: Any, text: Any = "has 2.0 MiB", id: Any = "not-looked-at") -> dict[str, Any]:
        return {"descriptor": {"id": id}, "message": {"text": text}, "locations": [place(path)]}

    told = note("c.py", id="other") | {"level": "note"}
    notes = [note("a%20b.py"), note("../x", "is odd"), told, None, note("d.py", 7)]
    ran = {"executionSuccessful": True, "toolExecutionNotifications": notes}
    found = read(log(invocations=[ran]), analyser="mine", root=ROOT)
    assert (found.problem, found.unlooked) == ("", {"a b.py": "has 2.0 MiB", "a file": "is odd", "d.py": ""})
    many = ran | {"toolExecutionNotifications": [note(f"{n}.py") for n in range(3 * FINDINGS)]}
    assert len(read(log(invocations=[many]), analyser="mine", root=ROOT).unlooked) == FINDINGS


@pytest.mark.parametrize("level", [{}, {"level": "warning"}, {"level": "error"}])
def test_a_file_that_a_tool_had_trouble_with_was_not_looked_at(level: dict[str, str]) -> None:
    note = {"message": {"text": "parse error"}, "locations": [place("a.js")]} | level
    elsewhere = [note | {"locations": []}, note | {"locations": [place("../b.js")]}]
    ran = {"executionSuccessful": True, "toolExecutionNotifications": [note, *elsewhere]}
    found = read(log(invocations=[ran]), analyser="eslint", root=ROOT)
    assert found.unlooked == {"a.js": "eslint had trouble with: parse error"}


def test_what_lies_beyond_the_results_and_runs_that_are_read_is_told() -> None:
    mild = result(level="note", suppressed=True) | {"suppressions": [{"kind": "inSource"}]}
    found = read(log(*[mild] * RESULTS, result(level="error")), analyser="mine", root=ROOT)
    assert found.findings == () and found.problem == "only the first 20000 of 20001 results were looked at"
    runs = json.loads(log(result()))["runs"]
    found = read(json.dumps({"runs": runs * (RUNS + 1)}).encode(), analyser="mine", root=ROOT)
    assert len(found.findings) == RUNS and found.problem == "only the first 20 of its 21 runs were read"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"runs": {}}',
        b"<xml/>",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"runs": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_sarif_log_is_refused(content: bytes) -> None:
    with pytest.raises(OutputRefused, match="mine"):
        read(content, analyser="mine", root=ROOT)


def test_a_log_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(OutputRefused, match="are read"):
        read(b" " * (SARIF_BYTES + 1), analyser="mine", root=ROOT)


def test_enormous_logs_are_read_in_bounded_time_up_to_a_cap() -> None:
    small = {"ruleId": "R", "locations": [place("a", startLine=1)]}
    began = time.thread_time()
    said = read(log(*[small] * 5_000), analyser="mine", root=ROOT)
    assert len(said.findings) == FINDINGS and str(FINDINGS) in said.problem
    empty = b'{"runs":[{"results":[' + b"{}," * 1_000_000 + b"{}]}]}"
    assert read(empty, analyser="mine", root=ROOT).findings == ()
    huge = log(result(message={"text": "x" * 2_000_000}, ruleId="y" * 100_000))
    (found,) = read(huge, analyser="mine", root=ROOT).findings
    assert len(found.model_dump_json()) < 6000
    assert time.thread_time() - began < 5


KEYS = (
    *(
        "results",
        "locations",
        "physicalLocation",
        "artifactLocation",
        "uri",
        "uriBaseId",
        "region",
        "startLine",
        "endLine",
    ),
    *(
        "message",
        "text",
        "id",
        "ruleId",
        "ruleIndex",
        "rule",
        "index",
        "level",
        "properties",
        "tags",
        "fixes",
        "snippet",
    ),
    *(
        "tool",
        "driver",
        "name",
        "rules",
        "suppressions",
        "status",
        "invocations",
        "artifacts",
        "originalUriBaseIds",
        "kind",
    ),
    *(
        "artifactChanges",
        "replacements",
        "deletedRegion",
        "insertedContent",
        "messageStrings",
        "arguments",
        "extensions",
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_nothing_that_is_json_breaks_the_reader(anything: Any) -> None:
    content = json.dumps(
        {
            "runs": [
                anything,
                {"results": [anything, result(fixes=[anything], message=anything, level=anything)]},
            ]
        }
    )
    said = read(content.encode(errors="surrogatepass"), analyser="mine", root=ROOT)
    for found in said.findings:
        json.dumps(found.wire()).encode()
        assert not found.path.startswith("/") and ".." not in found.path.split("/")


@given(st.text(max_size=40), st.text(max_size=12))
def test_no_uri_leads_out_of_the_work_tree(uri: str, base: str) -> None:
    where = {
        "physicalLocation": {"artifactLocation": {"uri": uri, "uriBaseId": "B"}, "region": {"startLine": 1}}
    }
    for found in findings(result(locations=[where]), originalUriBaseIds={"B": {"uri": base}}):
        assert found.path and not found.path.startswith("/") and ".." not in found.path.split("/")
