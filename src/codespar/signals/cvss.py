"""How bad a defect is, by its CVSS vector.

The base score of versions 3.0 and 3.1 is computed as FIRST's "Common Vulnerability Scoring System v3.1: Specification Document", section 7.1
(equations), 7.4 (metric values) and appendix A (rounding up), says; the words for scores are those of its section 5. Version 4.0 scores by
tables that we do not carry.
"""

from __future__ import annotations

import re

from codespar.domain.reviews import Severity

_VECTOR = re.compile(r"CVSS:3\.[01](?:/[A-Z]{1,3}:[A-Z]){8,40}")
_ATTACK_VECTOR = {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2}
_COMPLEXITY = {"L": 0.77, "H": 0.44}
_PRIVILEGES = {"N": 0.85, "L": 0.62, "H": 0.27}
_PRIVILEGES_SCOPE_CHANGED = {"N": 0.85, "L": 0.68, "H": 0.5}
_INTERACTION = {"N": 0.85, "R": 0.62}
_IMPACT = {"H": 0.56, "L": 0.22, "N": 0.0}
_BANDS = ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM), (0.1, Severity.LOW))


def base_score(vector: str) -> float | None:
    """The base score, 0.0 to 10.0, of a vector of version 3.0 or 3.1; None where it is no such vector."""
    if not _VECTOR.fullmatch(vector):
        return None
    metrics = [part.partition(":") for part in vector.split("/")[1:]]
    given = {name: value for name, _, value in metrics}
    if len(given) != len(metrics) or given.get("S") not in ("U", "C"):
        return None
    changed = given["S"] == "C"
    try:
        exploitability = (
            8.22
            * _ATTACK_VECTOR[given["AV"]]
            * _COMPLEXITY[given["AC"]]
            * (_PRIVILEGES_SCOPE_CHANGED if changed else _PRIVILEGES)[given["PR"]]
            * _INTERACTION[given["UI"]]
        )
        kept = (1 - _IMPACT[given["C"]]) * (1 - _IMPACT[given["I"]]) * (1 - _IMPACT[given["A"]])
    except KeyError:
        return None
    base = 1 - kept
    impact = 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15 if changed else 6.42 * base
    if impact <= 0:
        return 0.0
    return _rounded_up(min((1.08 if changed else 1.0) * (impact + exploitability), 10.0))


def _rounded_up(score: float) -> float:
    """To one decimal, upwards, without being led astray by the binary form of decimals."""
    hundred_thousandths = round(score * 100_000)
    if hundred_thousandths % 10_000 == 0:
        return hundred_thousandths / 100_000
    return (hundred_thousandths // 10_000 + 1) / 10


def severity_of(score: float) -> Severity:
    """The word for a base score; a score of zero is `INFO`."""
    return next((severity for least, severity in _BANDS if score >= least), Severity.INFO)
