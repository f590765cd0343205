"""Advisories of a service with OSV's interface: what is known to be wrong with versions of packages.

It is told the names and versions of packages and nothing else of the project. What it answers is data: it is shown, and never followed.
The interface is that of https://google.github.io/osv.dev/api/, the records are of https://ossf.github.io/osv-schema/.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codespar.domain.dependencies import Package
from codespar.domain.reviews import Severity
from codespar.signals.base import Advisory, SignalError
from codespar.signals.cvss import base_score, severity_of

MOST_QUERIES = 1000  # in one call, as the service has it
MOST_PAGES = 20
MOST_RECORDS = 100  # that are read in one look-up
MOST_KEPT = 2000  # records in memory
MOST_ANSWER = 16 * 1024**2  # bytes
AT_ONCE = 4
_ID = re.compile(r"[A-Za-z0-9][\w.:-]{0,99}", re.ASCII)
_WORDS = {severity.value.upper(): severity for severity in Severity} | {"MODERATE": Severity.MEDIUM}
_PREFERRED = (
    "GHSA-",
    "PYSEC-",
    "RUSTSEC-",
    "GO-",
)  # whose records say most; a CVE alone says least of packages
_Answer = TypeVar("_Answer", bound="_Tolerant")


class _Tolerant(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Named(_Tolerant):
    """A record by its id, as it was last changed."""

    id: str
    modified: str = ""


class _Result(_Tolerant):
    vulns: tuple[_Named, ...] = ()
    next_page_token: str = ""


class _Batch(_Tolerant):
    results: tuple[_Result | None, ...] = ()


class _Score(_Tolerant):
    type: str = ""
    score: str = ""


class _Event(_Tolerant):
    introduced: str | None = None
    fixed: str | None = None


class _Range(_Tolerant):
    type: str = ""
    events: tuple[_Event, ...] = ()


class _Of(_Tolerant):
    ecosystem: str = ""
    name: str = ""


class _Affected(_Tolerant):
    package: _Of | None = None
    ranges: tuple[_Range, ...] = ()
    severity: tuple[_Score, ...] | None = None


class _Reference(_Tolerant):
    type: str = ""
    url: str = ""


class _Record(_Tolerant):
    id: str
    summary: str = ""
    details: str = ""
    aliases: tuple[str, ...] = ()
    withdrawn: str | None = None
    severity: tuple[_Score, ...] | None = None
    affected: tuple[_Affected, ...] = ()
    references: tuple[_Reference, ...] = ()
    database_specific: dict[str, Any] | None = Field(default=None)


class OsvAdvisories:
    """`Advisories` of the service at `base_url`, such as https://api.osv.dev. `timeout`: seconds for one answer."""

    def __init__(self, base_url: str, *, timeout: float = 20.0) -> None:
        parts = urlsplit(base_url)
        self._base = base_url.rstrip("/")
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None
        self._records: dict[_Named, _Record | None] = {}  # None: the service has no record of the id
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def look_up(self, packages: Sequence[Package]) -> list[Advisory]:
        """In the packages' order, the worst first of each. Where more than `MOST_RECORDS` records would have to be read, the others are
        told by their id alone. Raises `SignalError`."""
        known = await self._known(packages)
        await self._read([named for found in known.values() for named in found])
        advisories: list[Advisory] = []
        for package in packages:
            advisories += self._of(package, known[_query_key(package)])
        return advisories

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _known(self, packages: Sequence[Package]) -> dict[tuple[str, str, str], list[_Named]]:
        """What is known of each package version, by id."""
        found: dict[tuple[str, str, str], list[_Named]] = {_query_key(package): [] for package in packages}
        waiting = [(key, "") for key in found]
        calls = 0
        while waiting:
            asked, waiting = waiting[:MOST_QUERIES], waiting[MOST_QUERIES:]
            calls += 1
            if calls > MOST_PAGES + len(found) // MOST_QUERIES:
                raise self._error(f"there is no end to its pages after {calls - 1} calls")
            batch = await self._ask(
                _Batch, "POST", "/v1/querybatch", {"queries": [_query(*one) for one in asked]}
            )
            if batch is None or len(batch.results) != len(asked):
                raise self._error("its answer to /v1/querybatch does not have one result for each query")
            for (key, _), result in zip(asked, batch.results, strict=True):
                if result is None:
                    continue
                known = found[key]
                known += [one for one in result.vulns if one not in known and _ID.fullmatch(one.id)]
                if result.next_page_token:
                    waiting.append((key, result.next_page_token))
        return found

    async def _read(self, named: Iterable[_Named]) -> None:
        """Fetch the records that are not here yet, or were changed since."""
        wanted = [one for one in dict.fromkeys(named) if one not in self._records][:MOST_RECORDS]
        while len(self._records) + len(wanted) > MOST_KEPT and self._records:
            del self._records[next(iter(self._records))]

        async def fetch(one: _Named) -> None:
            async with self._slots:
                self._records[one] = await self._ask(_Record, "GET", f"/v1/vulns/{quote(one.id, safe='')}")

        try:
            async with asyncio.TaskGroup() as group:
                for one in wanted:
                    group.create_task(fetch(one))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _ask(
        self, form: type[_Answer], method: str, path: str, body: dict[str, Any] | None = None
    ) -> _Answer | None:
        """An answer in its form, or None where there is nothing (404 to a GET). Raises `SignalError`."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout, headers={"User-Agent": "CodeSpar"}, follow_redirects=False
            )
        content = b""
        try:
            async with self._client.stream(method, self._base + path, json=body) as answer:
                if answer.status_code == 404 and method == "GET":
                    return None
                if answer.status_code != 200:
                    raise self._error(f"it answered {method} {path} with HTTP status {answer.status_code}")
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > MOST_ANSWER:
                        raise self._error(f"its answer to {path} has more than {MOST_ANSWER:,} bytes")
        except httpx.TimeoutException as error:
            raise self._error(f"no answer to {path} within {self._timeout:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(f"{path} could not be asked: {type(error).__name__}") from error
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            raise self._error(f"its answer to {path} is not of OSV's form") from error

    def _error(self, why: str) -> SignalError:
        return SignalError(
            f"the advisories at {self._shown} cannot be used: {why}. Check `reviews.advisories` in codespar.yaml and whether "
            "this machine reaches that address; leave the setting out to review without advisories."
        )

    # what the records say

    def _of(self, package: Package, known: Sequence[_Named]) -> list[Advisory]:
        """The advisories of a package, each defect once under whichever of its names is preferred."""
        records: list[_Record] = []
        unread: list[str] = []
        for one in known:
            if one not in self._records:
                unread.append(one.id)
            elif (record := self._records[one]) is not None and not record.withdrawn:
                records.append(record)
        found = [_advisory(package, same) for same in _same_defect(records)]
        named = {name for record in records for name in (record.id, *record.aliases)}
        found += [
            Advisory(
                id=id,
                package=package,
                summary="its record was not read",
                severity=Severity.MEDIUM,
                url=_page(id),
            )
            for id in unread
            if id not in named
        ]
        return sorted(found, key=lambda one: (-one.severity.rank, one.id))


def _query_key(package: Package) -> tuple[str, str, str]:
    version = package.version
    # OSV's versions of Go modules are without the `v` that Go's own have
    return (
        package.ecosystem,
        package.name,
        version.removeprefix("v") if package.ecosystem == "Go" else version,
    )


def _query(key: tuple[str, str, str], page: str) -> dict[str, Any]:
    ecosystem, name, version = key
    query = {"package": {"ecosystem": ecosystem, "name": name}, "version": version}
    return query | ({"page_token": page} if page else {})


def _same_defect(records: Sequence[_Record]) -> list[list[_Record]]:
    """The records by the defect they are of, those first that are preferred. Aliases may be named by one side alone, and lead on."""
    groups: list[tuple[set[str], list[_Record]]] = []
    for record in sorted(records, key=_preference):
        names, same = {record.id, *record.aliases}, [record]
        apart: list[tuple[set[str], list[_Record]]] = []
        for group in groups:
            if group[0] & names:
                names, same = group[0] | names, group[1] + same
            else:
                apart.append(group)
        groups = [*apart, (names, same)]
    return [sorted(same, key=_preference) for _, same in groups]


def _preference(record: _Record) -> tuple[int, str]:
    order = (place for place, prefix in enumerate(_PREFERRED) if record.id.startswith(prefix))
    return next(order, len(_PREFERRED)), record.id


def _advisory(package: Package, same: Sequence[_Record]) -> Advisory:
    first = same[0]
    summary = next((text for one in same if (text := _line(one.summary) or _line(one.details))), first.id)
    known = [severity for one in same if (severity := _severity(one, package)) is not None]
    return Advisory(
        id=first.id,
        package=package,
        summary=summary,
        severity=max(known, key=lambda one: one.rank, default=Severity.MEDIUM),
        fixed=next((fixed for one in same if (fixed := _fixed(one, package))), ""),
        url=next((url for one in same if (url := _url(one))), _page(first.id)),
    )


def _line(text: str) -> str:
    """The first line that says something, without what would not be seen."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return " ".join("".join(sign for sign in line if sign.isprintable()).split())[:300]


def _severity(record: _Record, package: Package) -> Severity | None:
    """By the CVSS vector of version 3 where there is one, else by the database's own word; None where neither says anything."""
    own = [score for one in record.affected if _is_of(one, package) for score in one.severity or ()]
    scores = [
        score
        for one in (*own, *(record.severity or ()))
        if one.type == "CVSS_V3" and (score := base_score(one.score)) is not None
    ]
    if scores:
        return severity_of(max(scores))
    word = (record.database_specific or {}).get("severity")
    return _WORDS.get(word.upper()) if isinstance(word, str) else None


def _is_of(affected: _Affected, package: Package) -> bool:
    of = affected.package
    if of is None or of.ecosystem.partition(":")[0] != package.ecosystem:
        return False
    return _plain(of.name, package.ecosystem) == _plain(package.name, package.ecosystem)


def _plain(name: str, ecosystem: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem == "PyPI" else name


def _fixed(record: _Record, package: Package) -> str:
    """The lowest version that is fixed and above the package's own; with a version that cannot be compared, nothing is said."""
    own = _comparable(package.version)
    fixed = {
        event.fixed
        for one in record.affected
        if _is_of(one, package)
        for range in one.ranges
        if range.type != "GIT"
        for event in range.events
        if event.fixed
    }
    above = [(key, version) for version in fixed if (key := _comparable(version)) is not None]
    return min(
        ((key, version) for key, version in above if own is not None and key > own), default=(own, "")
    )[1][:100]


def _comparable(version: str) -> tuple[int, ...] | None:
    """The numbers of a version's release. What comes before a release counts as it: a fixed version is rarely one such."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9}){0,9})", version)
    if found is None:
        return None
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _url(record: _Record) -> str:
    for kind in ("ADVISORY", "WEB", "REPORT"):
        for one in record.references:
            if one.type == kind and re.fullmatch(r"https?://[^\s<>\"'()\[\]]{1,500}", one.url):
                return one.url
    return ""


def _page(id: str) -> str:
    return f"https://osv.dev/vulnerability/{quote(id, safe='')}"
