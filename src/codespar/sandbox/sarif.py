"""Reads SARIF 2.1.0 (the OASIS standard) into findings.

The log comes out of a container: it may be malformed, enormous or made to deceive. Nothing in it is followed, opened or executed, no path leaves
the work tree, and every number and text has an end.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from codespar.domain.reviews import Category, Finding, Severity
from codespar.sandbox.base import OutputRefused
from codespar.sandbox.severities import category_of, severity_of

SARIF_BYTES = 8 * 1024**2
FINDINGS = 2000  # of one log; what comes after is not read, and the log's `problem` says so
RESULTS = 20_000  # of one run: as many are looked at, and the log's `problem` says so where there are more
RUNS = 20
TITLE, WHY, SUGGESTION, RULE, PATH, LINE = 300, 4000, 8000, 120, 1024, 1000  # characters
UNLOOKED = "not-looked-at"  # the id of a notification that names a file which its tool did not wholly look at
NAMELESS = "a file"  # where it names none
_LINES = 10_000_000  # no file has more
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_PLACEHOLDER = re.compile(r"\{(\d{1,2})\}")

Lines = Mapping[str, Mapping[int, str]]
"""The text of some lines of the work tree: path to line number to text."""


class SarifLog(NamedTuple):
    """What one run of a program said. `problem` is why, by its own account, it did not do its work, or what was left out of what it said;
    `unlooked` the files that it did not wholly look at, and why."""

    version: str
    findings: tuple[Finding, ...]
    problem: str
    unlooked: dict[str, str] = {}


def read(content: bytes, *, analyser: str, root: str, lines: Lines | None = None) -> SarifLog:
    """The findings of a log. `root` is the absolute path of the work tree as the program saw it; what lies elsewhere is dropped.

    A result that makes no sense is passed over, the others are read. One that the code itself or the tool's settings suppress is dropped when it
    is mild, and kept with severity low when it is not: a comment in a change must not hide what the change does. Raises `OutputRefused` when
    the content is no SARIF log or larger than `SARIF_BYTES`.
    """
    if len(content) > SARIF_BYTES:
        raise OutputRefused(
            f"{analyser} wrote {len(content)} bytes of SARIF, more than the {SARIF_BYTES} that are read"
        )
    try:
        log = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise OutputRefused(
            f"{analyser} wrote no SARIF: {str(error)[:200] or type(error).__name__}"
        ) from error
    runs = _list(_dict(log).get("runs"))
    if not isinstance(log, dict) or not isinstance(log.get("runs"), list):
        raise OutputRefused(f"{analyser} wrote JSON that is no SARIF log: it has no `runs`")
    findings: list[Finding] = []
    problems: list[str] = []
    unlooked: dict[str, str] = {}
    version = ""
    if len(runs) > RUNS:
        problems.append(f"only the first {RUNS} of its {len(runs)} runs were read")
    for item in runs[:RUNS]:
        run = _Run(_dict(item), analyser, root.rstrip("/"), lines or {})
        version = version or run.version
        problems += run.failures()
        unlooked |= run.unlooked()
        results = _list(run.log.get("results"))
        if len(results) > RESULTS:
            problems.append(f"only the first {RESULTS} of {len(results)} results were looked at")
        for result in results[:RESULTS]:
            if len(findings) == FINDINGS:
                problems.append(f"only the first {FINDINGS} findings were read")
                break
            finding = run.finding(_dict(result))
            if finding is not None:
                findings.append(finding)
    return SarifLog(version, tuple(findings), "; ".join(dict.fromkeys(problems)), unlooked)


class _Run:
    """One run of a log."""

    def __init__(self, log: dict[str, Any], analyser: str, root: str, lines: Lines) -> None:
        self.log = log
        self._analyser = analyser
        self._root = root
        self._lines = lines
        driver = _dict(_dict(log.get("tool")).get("driver"))
        self._tool = _text(driver.get("name"), RULE)
        self.version = _text(driver.get("semanticVersion"), 60) or _text(driver.get("version"), 60)
        self._rules = [_dict(rule) for rule in _list(driver.get("rules"))]
        self._by_id = {rule["id"]: rule for rule in self._rules if isinstance(rule.get("id"), str)}
        for extension in _list(_dict(log.get("tool")).get("extensions"))[:20]:
            for rule in map(_dict, _list(_dict(extension).get("rules"))):
                if isinstance(rule.get("id"), str):
                    self._by_id.setdefault(rule["id"], rule)
        self._bases = _dict(log.get("originalUriBaseIds"))
        self._artifacts = _list(log.get("artifacts"))

    def failures(self) -> list[str]:
        """What the tool says of runs that did not succeed."""
        said: list[str] = []
        for invocation in map(_dict, _list(self.log.get("invocations"))[:RUNS]):
            if invocation.get("executionSuccessful") is not False:
                continue
            notes = [
                _text(_dict(_dict(note).get("message")).get("text"), 500)
                for note in _list(invocation.get("toolExecutionNotifications"))[:3]
            ]
            said.append(" ".join(note for note in notes if note) or "it says that it failed")
        return said

    def unlooked(self) -> dict[str, str]:
        """The files that the tool names in notifications `not-looked-at`, and those that it had trouble with: by the standard (§3.58.6) the
        results of a notification's level `error` or `warning` may be incomplete."""
        found: dict[str, str] = {}
        for invocation in map(_dict, _list(self.log.get("invocations"))[:RUNS]):
            for note in map(_dict, _list(invocation.get("toolExecutionNotifications"))[:RESULTS]):
                place = _dict(_dict(_first(note.get("locations"))).get("physicalLocation"))
                path = self._path(_dict(place.get("artifactLocation")))
                text = _text(_dict(note.get("message")).get("text"), 100)
                if _dict(note.get("descriptor")).get("id") == UNLOOKED:
                    found.setdefault(path or NAMELESS, text)
                elif path and note.get("level", "warning") in ("error", "warning"):
                    found.setdefault(path, f"{self._analyser} had trouble with: {text}")
        return dict(itertools.islice(found.items(), FINDINGS))

    def finding(self, result: dict[str, Any]) -> Finding | None:
        """The finding a result is, None when it is none or lies nowhere in the work tree."""
        if (
            result.get("kind", "fail") not in ("fail", "open", "review")
            or result.get("baselineState") == "absent"
        ):
            return None
        place = _dict(_dict(_first(result.get("locations"))).get("physicalLocation"))
        path = self._path(_dict(place.get("artifactLocation")))
        extent = _extent(_dict(place.get("region")))
        if path is None or extent is None:
            return None
        rule_id, rule = self._rule(result)
        title, why = self._words(result, rule, rule_id)
        severity = severity_of(self._tool or self._analyser, rule_id, result, rule)
        category = category_of(self._analyser, self._tool, rule_id, result, rule)
        if _suppressed(result):
            if severity.rank < Severity.MEDIUM.rank:
                return None
            severity = Severity.LOW
            why = f"{why}\n\nIt is suppressed where it stands, by a comment or the tool's settings.".strip()
        start, end = extent
        text = self._lines.get(path, {}).get(start)
        if text is None:
            snippet = _dict(_dict(place.get("region")).get("snippet")).get("text")
            text = snippet.partition("\n")[0] if isinstance(snippet, str) else ""
        suggestion = None
        for fix in _list(result.get("fixes"))[:1]:
            replaced = self._replacement(_dict(fix), path, start, text)
            if replaced is not None:
                end, suggestion = replaced
        if category is Category.SECRET:  # known again by its digest: the secret itself goes nowhere
            text, suggestion = (
                "sha256:" + hashlib.sha256(text.strip().encode(errors="replace")).hexdigest()[:32],
                None,
            )
        return Finding(
            source=f"{self._analyser}:{rule_id}" if rule_id else self._analyser,
            path=path,
            start_line=start,
            end_line=end,
            severity=severity,
            category=category,
            title=title,
            why=why,
            suggestion=suggestion,
            line_text=_clean(text)[:LINE],
        )

    def _rule(self, result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        reference = _dict(result.get("rule"))
        index = result.get("ruleIndex", reference.get("index"))
        rule_id = _text(result.get("ruleId"), RULE) or _text(reference.get("id"), RULE)
        rule = self._by_id.get(rule_id)
        if rule is None and type(index) is int and 0 <= index < len(self._rules):
            rule = self._rules[index]
        if rule is None and "/" in rule_id:  # a hierarchical id is described by the rule above it
            rule = self._by_id.get(rule_id.rpartition("/")[0])
        rule = rule or {}
        return rule_id or _text(rule.get("id"), RULE), rule

    def _words(self, result: dict[str, Any], rule: dict[str, Any], rule_id: str) -> tuple[str, str]:
        """Title, one line, and why."""
        message = _dict(result.get("message"))
        text = message.get("text")
        if not isinstance(text, str):
            template = _dict(_dict(rule.get("messageStrings")).get(str(message.get("id")))).get("text")
            given = [str(one)[:TITLE] for one in _list(message.get("arguments"))[:20]]
            text = (
                _PLACEHOLDER.sub(
                    lambda m: given[int(m[1])] if int(m[1]) < len(given) else m[0], str(template)[:WHY]
                )
                if template
                else ""
            )
        text = _clean(text[: 2 * WHY]).strip()
        short = _text(_dict(rule.get("shortDescription")).get("text"), TITLE)
        first, _, rest = text.partition("\n")
        title = " ".join((first or short or rule_id or self._analyser).split())
        why = rest.strip()
        if len(title) > TITLE:
            why, title = text, title[: TITLE - 1] + "…"
        full = _clean(str(_dict(rule.get("fullDescription")).get("text") or "")[:WHY]).strip()
        if not why and full and full not in (text, short):
            why = full
        link = _text(rule.get("helpUri"), 300)
        why = why[:WHY]
        if link.startswith("https://") and not re.search(r"[\s<>()\[\]`]", link):
            why = f"{why}\n\n{link}".strip()
        return title, why

    def _path(self, artifact: dict[str, Any]) -> str | None:
        """A path from the work tree's root, None for anything that is not below it."""
        index = artifact.get("index")
        if "uri" not in artifact and type(index) is int and 0 <= index < len(self._artifacts):
            artifact = _dict(_dict(self._artifacts[index]).get("location"))
        uri = artifact.get("uri")
        base = artifact.get("uriBaseId")
        if not isinstance(uri, str) or not uri or len(uri) > 3 * PATH:
            return None
        for _ in range(8):
            if not isinstance(base, str) or uri.startswith("/") or _SCHEME.match(uri):
                break
            known = _dict(self._bases.get(base))
            before, base = known.get("uri"), known.get("uriBaseId")
            if isinstance(before, str) and before:
                uri = before.rstrip("/")[: 3 * PATH] + "/" + uri
        if uri.lower().startswith("file:"):
            uri = re.sub(r"^file:(//(localhost)?(?=/))?", "", uri, flags=re.IGNORECASE)
            if uri.startswith("//"):  # on another host
                return None
        elif _SCHEME.match(uri):
            return None
        try:
            path = unquote_to_bytes(uri).decode()
        except UnicodeDecodeError:
            return None
        if path.startswith("/"):
            if not path.startswith(self._root + "/"):
                return None
            path = path[len(self._root) + 1 :]
        parts: list[str] = []
        for part in path.split("/"):
            if part == "..":
                if not parts:
                    return None
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        whole = "/".join(parts)
        if not parts or parts[0] == ".git" or len(whole) > PATH or re.search(r"[\x00-\x1f\x7f]", whole):
            return None
        return whole

    def _replacement(self, fix: dict[str, Any], path: str, start: int, text: str) -> tuple[int, str] | None:
        """Last line and new text, when the fix replaces lines from `start` on and nothing else."""
        changes = _list(fix.get("artifactChanges"))
        change = _dict(changes[0]) if len(changes) == 1 else {}
        replacements = _list(change.get("replacements"))
        if len(replacements) != 1 or self._path(_dict(change.get("artifactLocation"))) != path:
            return None
        region = _dict(_dict(replacements[0]).get("deletedRegion"))
        new = _dict(_dict(replacements[0]).get("insertedContent")).get("text", "")
        first = _int(region.get("startLine"))
        last = _int(region.get("endLine", first))
        column, after = (
            _int(region.get("startColumn", 1)),
            _int(region.get("endColumn", 0)),
        )  # 0: to the line's end
        if (
            not isinstance(new, str)
            or len(new) > SUGGESTION
            or first != start
            or not start <= last <= start + 200
        ):
            return None
        if column == 1 and after == 1 and last > first and (not new or new.endswith("\n")):
            return last - 1, new.removesuffix("\n")
        if column == 1 and "endColumn" not in region and not new.endswith("\n"):
            return last, new
        if (
            last == first
            and 1 <= column <= after <= len(text) + 1 <= LINE
            and text.isascii()
            and "\n" not in new
        ):
            return last, text[: column - 1] + new + text[after - 1 :]
        return None


def _suppressed(result: dict[str, Any]) -> bool:
    found = [_dict(one) for one in _list(result.get("suppressions"))]
    return bool(found) and all(one.get("status", one.get("state", "accepted")) == "accepted" for one in found)


def _extent(region: dict[str, Any]) -> tuple[int, int] | None:
    """First and last line. A result about a whole file stands at its first line."""
    start, end, column = region.get("startLine", 1), region.get("endLine"), region.get("endColumn")
    if type(start) is not int or not 0 <= start <= _LINES:
        return None
    start = max(start, 1)
    if type(end) is not int or not start <= end <= _LINES:
        return start, start
    return start, end - 1 if column == 1 and end > start else end  # it ends before the line's first character


def _clean(text: str) -> str:
    """Without control characters, and without what JSON may hold but no text can."""
    return _CONTROL.sub("", text).encode(errors="replace").decode()


def _text(value: Any, cap: int) -> str:
    """One line of at most `cap` characters; empty for anything that is no text."""
    return " ".join(_clean(value[: cap * 4]).split())[:cap] if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _int(value: Any) -> int:
    """-1 for anything that is no whole number."""
    return value if type(value) is int else -1


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None
