"""How bad a result of an analyser is, and of which kind: from what SARIF says, and from what is known of some tools that say it otherwise.

Pure. A tool that is not known here is taken by the standard: `security-severity` where there is one, else the level.
"""

from __future__ import annotations

import math
import re
from typing import Any

from codespar.domain.reviews import Category, Severity

_LEVELS = {
    "error": Severity.HIGH,
    "warning": Severity.MEDIUM,
    "note": Severity.LOW,
    "none": Severity.INFO,
}
_SECURITY_TOOLS = (
    "bandit",
    "codeql",
    "gosec",
    "brakeman",
    "opengrep",
    "njsscan",
    "checkov",
    "trivy",
    "snyk",
)
_SECRET_TOOLS = ("detect-secrets", "gitleaks", "trufflehog", "secret")
_DEPENDENCY_TOOLS = ("osv-scanner", "pip-audit", "npm-audit", "govulncheck", "grype", "dependency-check")
_TAGS = (  # the first that fits, so what is worse comes first
    (Category.SECRET, re.compile(r"secrets?|credentials?|hardcoded-secrets?")),
    (Category.DEPENDENCY, re.compile(r"dependenc(y|ies)|sca|vulnerable-dependency")),
    (Category.SECURITY, re.compile(r"security|vulnerability|(external/)?cwe([-:/].*)?|owasp.*")),
    (Category.PERFORMANCE, re.compile(r"performance|efficiency")),
    (Category.TESTS, re.compile(r"tests?|testing")),
    (Category.CORRECTNESS, re.compile(r"correctness|reliability|bugs?|logic|error-prone")),
    (
        Category.STYLE,
        re.compile(r"style|maintainability|readability|conventions?|formatting|best-practices?"),
    ),
)
# ruff says "error" of everything: its rules by code, the longest prefix that fits
_RUFF = {
    "invalid-syntax": (Severity.HIGH, Category.CORRECTNESS),
    "E9": (Severity.HIGH, Category.CORRECTNESS),
    "F82": (Severity.HIGH, Category.CORRECTNESS),  # a name that is not there
    "F70": (Severity.HIGH, Category.CORRECTNESS),
    "F": (Severity.MEDIUM, Category.CORRECTNESS),
    "F401": (Severity.LOW, Category.STYLE),
    "F541": (Severity.INFO, Category.STYLE),
    "F841": (Severity.LOW, Category.STYLE),
    "F811": (Severity.LOW, Category.CORRECTNESS),
    "PLE": (Severity.HIGH, Category.CORRECTNESS),
    "PLW": (Severity.LOW, Category.CORRECTNESS),
    "B": (Severity.MEDIUM, Category.CORRECTNESS),
    "B904": (Severity.LOW, Category.STYLE),
    "B905": (Severity.LOW, Category.STYLE),
    "ASYNC": (Severity.MEDIUM, Category.PERFORMANCE),
    "RUF006": (Severity.MEDIUM, Category.CORRECTNESS),
    "S": (Severity.MEDIUM, Category.SECURITY),
    "S101": (Severity.INFO, Category.STYLE),
    "SIM": (Severity.INFO, Category.STYLE),
    "SLF": (Severity.INFO, Category.STYLE),
    "SLOT": (Severity.INFO, Category.STYLE),
    "BLE": (Severity.LOW, Category.CORRECTNESS),
    "PERF": (Severity.LOW, Category.PERFORMANCE),
    "PT": (Severity.INFO, Category.TESTS),
    "PTH": (Severity.INFO, Category.STYLE),
    "FBT": (Severity.INFO, Category.STYLE),
    "FA": (Severity.INFO, Category.STYLE),
    "FIX": (Severity.INFO, Category.STYLE),
    "FLY": (Severity.INFO, Category.STYLE),
    "FURB": (Severity.INFO, Category.STYLE),
    "DTZ": (Severity.LOW, Category.CORRECTNESS),
}


def severity_of(tool: str, rule_id: str, result: dict[str, Any], rule: dict[str, Any]) -> Severity:
    """How bad it is. `tool` is the driver's name."""
    name = tool.casefold()
    if name == "ruff":
        return _ruff(rule_id)[0]
    properties = _dict(result.get("properties"))
    if name == "bandit" and isinstance(properties.get("issue_severity"), str):
        return _bandit(properties)
    for given in (properties, _dict(rule.get("properties"))):
        score = _number(given.get("security-severity"))
        if score is not None:
            return _scored(score)
    for level in (result.get("level"), _dict(rule.get("defaultConfiguration")).get("level")):
        if isinstance(level, str) and level in _LEVELS:
            return _LEVELS[level]
    return Severity.MEDIUM  # "warning", where nothing is said


def category_of(
    analyser: str, tool: str, rule_id: str, result: dict[str, Any], rule: dict[str, Any]
) -> Category:
    """Of which kind it is: by the tags of the result and its rule, else by what the tool is for."""
    if tool.casefold() == "ruff":
        return _ruff(rule_id)[1]
    names = f"{analyser} {tool}".casefold()
    if any(known in names for known in _SECRET_TOOLS):
        return Category.SECRET
    if any(known in names for known in _DEPENDENCY_TOOLS):
        return Category.DEPENDENCY
    tags: list[str] = []
    for given in (_dict(result.get("properties")), _dict(rule.get("properties"))):
        listed = given.get("tags")
        tags += (
            [tag[:80].casefold() for tag in listed[:50] if isinstance(tag, str)]
            if isinstance(listed, list)
            else []
        )
        tags += [given["category"][:80].casefold()] if isinstance(given.get("category"), str) else []
        if "security-severity" in given:
            tags.append("security")
    for category, pattern in _TAGS:
        if any(pattern.fullmatch(tag) for tag in tags):
            return category
    return Category.SECURITY if any(known in names for known in _SECURITY_TOOLS) else Category.CORRECTNESS


def _ruff(rule_id: str) -> tuple[Severity, Category]:
    for length in range(len(rule_id), 0, -1):
        known = _RUFF.get(rule_id[:length])
        # a prefix of letters stands for a whole linter: S must not answer for SIM, nor F for FURB
        if known and (length == len(rule_id) or not rule_id[length].isalpha()):
            return known
    return Severity.INFO, Category.STYLE


def _bandit(properties: dict[str, Any]) -> Severity:
    """bandit's severity, one step milder where it is not sure."""
    severity = {"HIGH": Severity.HIGH, "MEDIUM": Severity.MEDIUM}.get(
        str(properties["issue_severity"]).upper(), Severity.LOW
    )
    if str(properties.get("issue_confidence", "HIGH")).upper() == "LOW":
        return list(Severity)[severity.rank - 1]
    return severity


def _scored(score: float) -> Severity:
    """A CVSS score as people group it, https://www.first.org/cvss/specification-document."""
    bounds = ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM), (0.1, Severity.LOW))
    return next((severity for bound, severity in bounds if score >= bound), Severity.INFO)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)[:40]) > 20:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
