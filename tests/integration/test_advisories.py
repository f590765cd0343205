"""Advisories over HTTP, against a server of our own that speaks OSV's interface and refuses what its documents do not allow.

The real service is not asked: this server stands for it, and its records are made up after the schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from codespar.domain.dependencies import Package
from codespar.domain.reviews import Severity
from codespar.signals.base import SignalError
from codespar.signals.osv import AT_ONCE, MOST_RECORDS, OsvAdvisories

HIGH = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H"
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


def package(
    name: str = "jinja2", version: str = "3.1.1", ecosystem: str = "PyPI", path: str = "uv.lock"
) -> Package:
    return Package(ecosystem=ecosystem, name=name, version=version, path=path, line=7)


def record(id: str, **fields: Any) -> dict[str, Any]:
    return {
        "schema_version": "1.6.0",
        "id": id,
        "modified": "2024-01-01T00:00:00Z",
        "summary": f"{id} is bad",
    } | fields


def affected(
    *fixed: str, name: str = "jinja2", ecosystem: str = "PyPI", kind: str = "ECOSYSTEM"
) -> dict[str, Any]:
    events = [{"introduced": "0"}, *({"fixed": version} for version in fixed)]
    return {"package": {"ecosystem": ecosystem, "name": name}, "ranges": [{"type": kind, "events": events}]}


class Osv:
    """The service: which ids each (ecosystem, name, version) has, a record each id, and what was asked."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], list[str]] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.page = 1000
        self.batches: list[int] = []
        self.reads: list[str] = []
        self.at_once = self.most_at_once = 0
        self.pause = 0.0
        self.answer: web.Response | None = None  # to everything
        self.url = ""

    def add(self, of: Package, *records: dict[str, Any], version: str | None = None) -> None:
        key = (of.ecosystem, of.name, version or of.version)
        self.known.setdefault(key, []).extend(one["id"] for one in records)
        self.records |= {one["id"]: one for one in records}

    async def batch(self, request: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer
        body = await request.json()
        assert set(body) == {"queries"} and 1 <= len(body["queries"]) <= 1000
        self.batches.append(len(body["queries"]))
        results: list[dict[str, Any]] = []
        for query in body["queries"]:
            assert set(query) <= {"package", "version", "page_token"}
            assert set(query["package"]) == {"ecosystem", "name"} and query["version"]
            start = int(query.get("page_token", "0"))
            ids = self.known.get(
                (query["package"]["ecosystem"], query["package"]["name"], query["version"]), []
            )
            vulns = [
                {"id": id, "modified": self.records[id]["modified"]} for id in ids[start : start + self.page]
            ]
            more = {"next_page_token": str(start + self.page)} if start + self.page < len(ids) else {}
            results.append(({"vulns": vulns} if vulns else {}) | more)
        return web.json_response({"results": results})

    async def read(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        self.reads.append(id)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(self.pause)
        self.at_once -= 1
        if self.records.get(id, {}).get("gone", id not in self.records):
            return web.json_response({"code": 5, "message": "Bug not found."}, status=404)
        return web.json_response(self.records[id])


@asynccontextmanager
async def serve(osv: Osv) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.post("/v1/querybatch", osv.batch), web.get("/v1/vulns/{id}", osv.read)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture
async def osv() -> AsyncIterator[Osv]:
    found = Osv()
    async with serve(found) as found.url:
        yield found


@pytest_asyncio.fixture
async def advisories(osv: Osv) -> AsyncIterator[OsvAdvisories]:
    source = OsvAdvisories(osv.url + "/", timeout=30)
    yield source
    await source.close()


async def test_what_is_known_of_a_version_is_told_with_severity_fix_and_address(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    known = record(
        "GHSA-aaaa",
        severity=[{"type": "CVSS_V3", "score": HIGH}],
        affected=[affected("3.1.2"), affected("9.9", name="other"), affected("0f0f", kind="GIT")],
        references=[
            {"type": "WEB", "url": "https://example.org/w"},
            {"type": "ADVISORY", "url": "https://example.org/a"},
        ],
    )
    osv.add(package(), known)
    (found,) = await advisories.look_up([package(), package("flask", "3.0")])
    assert (found.id, found.severity, found.fixed) == ("GHSA-aaaa", Severity.HIGH, "3.1.2")
    assert (found.package, found.summary, found.url) == (
        package(),
        "GHSA-aaaa is bad",
        "https://example.org/a",
    )


async def test_nothing_is_asked_for_no_package_and_told_for_a_harmless_one(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    assert await advisories.look_up([]) == [] and osv.batches == []
    assert await advisories.look_up([package()]) == [] and osv.reads == []


async def test_the_names_of_one_defect_are_told_once_with_the_worst_that_is_known(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    osv.add(
        package(),
        record("CVE-2024-1", severity=[{"type": "CVSS_V3", "score": CRITICAL}], affected=[affected("3.1.4")]),
        record(
            "PYSEC-2024-1", aliases=["CVE-2024-1", "GHSA-bbbb"], summary="", details="\n\nlong words\nmore"
        ),
        record("GHSA-bbbb", database_specific={"severity": "LOW"}),
        record("GHSA-cccc", aliases=["CVE-2024-2"]),
    )
    found = await advisories.look_up([package()])
    assert [(one.id, one.severity, one.fixed) for one in found] == [
        ("GHSA-bbbb", Severity.CRITICAL, "3.1.4"),
        ("GHSA-cccc", Severity.MEDIUM, ""),
    ]
    assert found[0].url == "https://osv.dev/vulnerability/GHSA-bbbb"


async def test_withdrawn_records_and_those_that_are_gone_are_left_out(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    osv.add(package(), record("GHSA-dddd", withdrawn="2024-02-01T00:00:00Z"), record("GHSA-eeee", gone=True))
    assert await advisories.look_up([package()]) == []


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}]}, Severity.MEDIUM),
        (
            {
                "severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}],
                "database_specific": {"severity": "CRITICAL"},
            },
            Severity.CRITICAL,
        ),
        ({"database_specific": {"severity": "MODERATE"}}, Severity.MEDIUM),
        ({"database_specific": {"severity": ["HIGH"]}}, Severity.MEDIUM),
        ({"affected": [affected() | {"severity": [{"type": "CVSS_V3", "score": HIGH}]}]}, Severity.HIGH),
        (
            {"affected": [affected(name="other") | {"severity": [{"type": "CVSS_V3", "score": HIGH}]}]},
            Severity.MEDIUM,
        ),
        ({"severity": None, "database_specific": None}, Severity.MEDIUM),
    ],
)
async def test_severity_is_the_vectors_or_the_databases_or_medium(
    osv: Osv, advisories: OsvAdvisories, fields: dict[str, Any], severity: Severity
) -> None:
    osv.add(package(), record("GHSA-ffff", **fields))
    assert [one.severity for one in await advisories.look_up([package()])] == [severity]


@pytest.mark.parametrize(
    ("version", "fixed"),
    [("2.9", "2.10.1"), ("2.10.1", "3.0.2"), ("3.0", "3.0.2"), ("4.0", ""), ("stable", "")],
)
async def test_the_fixed_version_is_the_next_one_of_this_package(
    osv: Osv, advisories: OsvAdvisories, version: str, fixed: str
) -> None:
    of = package("Ruamel.yaml", version)
    osv.add(
        of, record("GHSA-gggg", affected=[affected("3.0.2", "2.10.1", name="ruamel-yaml"), affected("2.9.9")])
    )
    assert [one.fixed for one in await advisories.look_up([of])] == [fixed]


async def test_a_go_version_is_asked_for_as_osv_has_it(osv: Osv, advisories: OsvAdvisories) -> None:
    net = package("golang.org/x/net", "v0.1.0", "Go")
    fix = affected("0.7.0", name=net.name, ecosystem="Go", kind="SEMVER")
    osv.add(net, record("GO-2023-1", affected=[fix]), version="0.1.0")
    assert [one.fixed for one in await advisories.look_up([net])] == ["0.7.0"]


async def test_the_same_version_in_two_files_is_asked_once_and_told_of_both(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    osv.add(package(), record("GHSA-hhhh"))
    found = await advisories.look_up([package(), package(path="requirements.txt")])
    assert [one.package.path for one in found] == ["uv.lock", "requirements.txt"]
    assert osv.batches == [1] and osv.reads == ["GHSA-hhhh"]


async def test_many_packages_are_asked_a_thousand_at_a_time_and_pages_are_followed(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    osv.page = 2
    osv.add(package(), *(record(f"GHSA-{number}") for number in range(5)))
    found = await advisories.look_up([package(), *(package(f"p{number}") for number in range(1500))])
    assert len(found) == 5 and osv.batches == [1000, 502, 1]


async def test_records_are_read_four_at_a_time_and_kept_until_they_change(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    osv.pause = 0.02
    osv.add(package(), *(record(f"GHSA-{number}") for number in range(12)))
    await asyncio.gather(advisories.look_up([package()]), advisories.look_up([package()]))
    assert osv.most_at_once <= AT_ONCE
    osv.reads.clear()
    await advisories.look_up([package()])
    assert osv.reads == []
    osv.records["GHSA-3"] |= {"modified": "2025-01-01T00:00:00Z", "summary": "worse than we thought"}
    found = await advisories.look_up([package()])
    assert osv.reads == ["GHSA-3"] and "worse than we thought" in {one.summary for one in found}


async def test_records_beyond_the_limit_are_told_by_their_id(osv: Osv, advisories: OsvAdvisories) -> None:
    osv.add(package(), *(record(f"GHSA-{number:03}") for number in range(MOST_RECORDS + 3)))
    found = await advisories.look_up([package()])
    assert len(found) == MOST_RECORDS + 3 and len(osv.reads) == MOST_RECORDS
    assert [one.summary for one in found if "not read" in one.summary] == ["its record was not read"] * 3


async def test_an_id_that_is_no_id_is_never_asked_for(osv: Osv, advisories: OsvAdvisories) -> None:
    osv.add(package(), record("../../admin"), record("GHSA-ok"))
    assert [one.id for one in await advisories.look_up([package()])] == ["GHSA-ok"]


async def test_what_a_record_says_is_cut_and_without_hidden_signs(
    osv: Osv, advisories: OsvAdvisories
) -> None:
    bad = record(
        "GHSA-iiii",
        summary="bad\u202e\x1b[31m  words " + "x" * 1000 + "\nignored",
        references=[{"type": "ADVISORY", "url": "javascript:alert(1)"}],
    )
    osv.add(package(), bad)
    (found,) = await advisories.look_up([package()])
    assert found.summary.startswith("bad[31m words x") and len(found.summary) == 300
    assert found.url.startswith("https://osv.dev/")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: web.Response(status=503, text="busy"), "HTTP status 503"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "HTTP status 302"),
        (lambda: web.Response(status=404), "HTTP status 404"),
        (lambda: web.Response(text="<html>"), "not of OSV's form"),
        (lambda: web.json_response({"results": [7]}), "not of OSV's form"),
        (lambda: web.json_response({"results": []}), "one result for each query"),
        (lambda: web.json_response({"results": [{"next_page_token": "1"}]}), "no end to its pages"),
        (lambda: web.Response(body=b" " * (17 * 1024**2)), "more than 16,777,216 bytes"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_with_the_address(
    osv: Osv, answer: Any, told: str
) -> None:
    async def wrong(_: web.Request) -> web.Response:
        return answer()

    osv.batch = wrong  # type: ignore[method-assign]
    async with serve(osv) as url:
        source = OsvAdvisories(url.replace("http://", "http://somebody:secret@"))
        with pytest.raises(SignalError, match=r"reviews\.advisories") as refused:
            await source.look_up([package()])
        await source.close()
    assert told in str(refused.value) and url in str(refused.value) and "secret" not in str(refused.value)


async def test_a_service_that_does_not_answer_is_told(osv: Osv) -> None:
    osv.pause = 3
    osv.add(package(), record("GHSA-jjjj"))
    source = OsvAdvisories(osv.url, timeout=2)
    with pytest.raises(SignalError, match=r"no answer to /v1/vulns/GHSA-jjjj within 2 s"):
        await source.look_up([package()])
    osv.pause = 0
    assert len(await source.look_up([package()])) == 1, "the next look-up starts anew"
    await source.close()
    await source.close()


async def test_an_address_where_nobody_listens_is_told() -> None:
    source = OsvAdvisories("http://127.0.0.1:9")
    with pytest.raises(SignalError, match=r"http://127\.0\.0\.1:9 cannot be used: .*ConnectError"):
        await source.look_up([package()])
    await source.close()
