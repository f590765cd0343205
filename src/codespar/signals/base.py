"""The ports to what lies outside the code: today, what is known to be wrong with other people's packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from codespar.domain.base import CodesparError, Value
from codespar.domain.dependencies import Package
from codespar.domain.reviews import Severity


class SignalError(CodesparError):
    """A source does not answer, or answers what cannot be used. The text says which and what to do."""


class Advisory(Value):
    """A known defect of one version of a package."""

    id: str  # GHSA-…, CVE-…, PYSEC-…
    package: Package
    summary: str
    severity: Severity
    fixed: str = ""  # the first version without it; empty: none is known
    url: str = ""


class Advisories(Protocol):
    """A source of advisories."""

    async def look_up(self, packages: Sequence[Package]) -> list[Advisory]:
        """What is known of these versions, each defect once a package. Raises `SignalError`."""
        ...

    async def close(self) -> None:
        """Let go of connections. No error when there are none."""
        ...
