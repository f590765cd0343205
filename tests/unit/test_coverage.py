"""Coverage reports: what they say of changed lines, and what broken or hostile ones may do."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.domain import coverage
from codespar.domain.coverage import CoverageError, Lines, Report, about, changed_lines, read, share, unpacked
from codespar.domain.diffs import parse

XML = b"""<?xml version="1.0" ?>
<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">
<coverage version="7.17.3" line-rate="0.57">
  <sources><source>/home/runner/work/shop/shop/src</source></sources>
  <packages><package name="shop"><classes>
    <class name="cart.py" filename="shop/cart.py">
      <methods><method name="total"><lines><line number="2" hits="4"/></lines></method></methods>
      <lines><line number="1" hits="1"/><line number="2" hits="4"/><line number="3" hits="0"/></lines>
    </class>
    <class name="other.py" filename="shop/other.py"><lines><line number="1" hits="1"/></lines></class>
  </classes></package></packages>
</coverage>
"""
LCOV = b"TN:\nSF:src/shop/cart.py\nFN:1,total\nDA:1,1\nDA:2,4,aGVsbG8\nDA:3,0\nLF:3\nLH:2\nend_of_record\n"
JSON = json.dumps(
    {
        "meta": {"format": 3, "version": "7.17.3"},
        "files": {"src/shop/cart.py": {"executed_lines": [1, 2], "missing_lines": [3], "excluded_lines": []}},
        "totals": {},
    }
).encode()
TREE = ["README.md", "src/shop/__init__.py", "src/shop/cart.py", "tests/test_cart.py"]
MIB = 1024**2


def changed(*lines: int, path: str = "src/shop/cart.py") -> dict[str, frozenset[int]]:
    return {path: frozenset(lines)}


def said(content: bytes, new: dict[str, frozenset[int]], tree: list[str] | None = None) -> coverage.Share:
    names = {path.rpartition("/")[2] for path in new}
    report = read(content, names)
    assert report is not None
    return share([about(report, new, tree or TREE)])


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


# shapes


@pytest.mark.parametrize(
    "content", [XML, LCOV, JSON, b"\xef\xbb\xbf" + LCOV[4:], LCOV.replace(b"\n", b"\r\n")]
)
def test_each_shape_is_known_by_its_content_and_counted_alike(content: bytes) -> None:
    assert said(content, changed(2, 3, 4, 90)) == (1, 2)
    assert said(content, changed(1, 2)).value == 1.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"<html><body>coverage</body></html>",
        b"{}",
        b'{"files": {}}',
        b"hello",
        b"\x00\xff" * 50,
        b"SFX:",
    ],
)
def test_what_is_no_report_is_none(content: bytes) -> None:
    assert read(content, {"cart.py"}) is None


def test_a_line_that_ran_once_in_a_report_ran() -> None:
    twice = LCOV + b"TN:two\nSF:src/shop/cart.py\nDA:1,0\nDA:3,1\nend_of_record\n"
    assert said(twice, changed(1, 2, 3)) == (3, 3)


def test_reports_are_added_up_line_by_line() -> None:
    one = {"a": Lines(frozenset({1}), frozenset({1, 2})), "b": Lines(frozenset(), frozenset({5}))}
    two = {"a": Lines(frozenset({2}), frozenset({2, 3}))}
    assert share([one, two]) == (2, 4)
    assert share([one, two]).value == 0.5
    assert share([]).value is None


def test_a_report_that_knows_nothing_of_the_change_gives_no_share() -> None:
    assert said(LCOV, changed(50)).value is None
    assert said(LCOV, changed(1, path="src/shop/__init__.py")).value is None


def test_only_new_lines_count_and_those_of_tests_do_not() -> None:
    diff = parse(
        "diff --git a/src/a.py b/src/a.py\n--- a/src/a.py\n+++ b/src/a.py\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+3\n"
        "diff --git a/tests/test_a.py b/tests/test_a.py\n--- a/tests/test_a.py\n+++ b/tests/test_a.py\n@@ -1 +1,2 @@\n one\n+two\n"
        "diff --git a/gone.py b/gone.py\ndeleted file mode 100644\n--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n"
    )
    assert changed_lines(diff) == {"src/a.py": frozenset({2, 3})}


# paths


@pytest.mark.parametrize(
    ("named", "sources", "tree", "meant"),
    [
        ("src/a.py", [], ["src/a.py", "a.py"], "src/a.py"),
        ("./src/../src/a.py", [], ["src/a.py"], "src/a.py"),
        ("../src/a.py", [], ["src/a.py"], "src/a.py"),
        ("/home/runner/work/shop/shop/src/a.py", [], ["src/a.py", "a.py"], "src/a.py"),
        ("C:\\w\\shop\\src\\a.py", [], ["src/a.py"], "src/a.py"),
        ("a.py", ["/w/shop/src"], ["src/a.py", "lib/a.py"], "src/a.py"),
        ("a.py", ["/w/shop/src"], ["src/a.py", "a.py"], "src/a.py"),
        ("a.py", ["/w/src", "/w/lib"], ["src/a.py", "lib/a.py"], None),
        ("a.py", ["/w/src", "/w/lib"], ["src/a.py", "b.py"], "src/a.py"),
        ("models.py", ["/app"], ["backend/models.py"], "backend/models.py"),
        ("a.py", [], ["src/a.py"], "src/a.py"),
        ("a.py", [], ["src/a.py", "lib/a.py"], None),
        ("a.py", [], ["a.py", "lib/a.py"], "a.py"),
        ("/elsewhere/b/a.py", [], ["src/a.py"], None),
        ("xa.py", [], ["a.py"], None),
        ("C:/w/a.py", ["/w"], ["a.py"], "a.py"),
    ],
)
def test_a_path_of_a_report_means_the_one_file_that_fits_longest(
    named: str, sources: list[str], tree: list[str], meant: str | None
) -> None:
    ran = frozenset({1})
    lcov = f"SF:{named}\nDA:1,1\nend_of_record\n".encode()
    report = read(lcov, {path.rpartition("/")[2] for path in tree})
    assert report is not None
    report = Report(report.files, tuple(sources))
    found = about(report, dict.fromkeys(tree, ran), tree)
    assert found == ({} if meant is None else {meant: Lines(ran, ran)})


def test_a_file_that_was_not_changed_is_not_taken_for_one_that_was() -> None:
    lcov = b"SF:a.py\nDA:1,1\nend_of_record\n"
    report = read(lcov, {"a.py"})
    assert report is not None
    assert about(report, changed(1, path="src/a.py"), ["src/a.py", "lib/a.py"]) == {}
    assert about(report, changed(1, path="src/a.py"), ["src/a.py", "a.py"]) == {}


def test_two_paths_that_mean_the_same_file_make_it_unknown_unless_one_fits_longer() -> None:
    two = b"SF:/x/a.py\nDA:1,1\nend_of_record\nSF:/y/a.py\nDA:1,0\nend_of_record\n"
    assert said(two, changed(1, path="a.py"), ["a.py"]) == (0, 0)
    better = b"SF:/x/src/a.py\nDA:1,0\nend_of_record\nSF:a.py\nDA:1,1\nend_of_record\n"
    assert said(better, changed(1, path="src/a.py"), ["src/a.py"]) == (0, 1)


# broken and hostile


@pytest.mark.parametrize(
    "content",
    [
        XML[:-20],
        XML.replace(b'number="3"', b'number="three"'),
        XML.replace(b'number="3"', b'number="-3"'),
        XML.replace(b'number="3"', b'number="' + b"9" * 5000 + b'"'),
        XML.replace(b' hits="0"', b""),
        XML.replace(b'filename="shop/cart.py"', b""),
        b'<coverage generated="1"><project><file name="a"><line num="1" count="1"/></file></project></coverage>',
        b"<coverage>" + b"<a>" * 100_000,
        b"<coverage><class filename='other.py'>" + b"<line>" * 100_000,
        b'<?xml version="1.0" encoding="nonsense"?><coverage></coverage>',
        b"<coverage><class filename='" + b"x" * 9000 + b"'/></coverage>",
        LCOV[:-15],
        LCOV.replace(b"DA:3,0", b"DA:three,0"),
        LCOV.replace(b"DA:3,0", b"DA:99999999,0"),
        LCOV.replace(b"end_of_record\n", b"") + b"SF:b.py\nend_of_record\n",
        JSON[:-3],
        JSON.replace(b"[3]", b"3"),
        JSON.replace(b"[3]", b'["3"]'),
        JSON.replace(b"[3]", b"[true]"),
        JSON.replace(b"[3]", b"[" + b"9" * 5000 + b"]"),
        JSON.replace(b"[3]", b"[" * 100_000),
        b'{"executed_lines": 1}',
    ],
)
def test_a_broken_report_is_refused_in_words(content: bytes) -> None:
    with pytest.raises(CoverageError) as refused:
        read(content, {"cart.py"})
    assert 10 < len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "inside",
    [
        b'<!ENTITY a "aaaaaaaaaa">',
        b'<!ENTITY a "a"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">',
        b'<!ENTITY a SYSTEM "file:///etc/passwd">',
        b'<!ENTITY % a SYSTEM "http://127.0.0.1:1/x"> %a;',
    ],
)
def test_xml_that_defines_entities_is_refused(inside: bytes) -> None:
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE coverage ['
        + inside
        + b"]><coverage><sources><source>&a;</source></sources></coverage>"
    )
    with pytest.raises(CoverageError, match="entities"):
        read(bomb, {"cart.py"})


def test_a_report_of_too_many_files_or_too_much_json_is_refused() -> None:
    many = b"".join(b"SF:f%d.py\nend_of_record\n" % n for n in range(coverage.MOST_FILES + 1))
    with pytest.raises(CoverageError, match="more than 5,000 files"):
        read(many, {"cart.py"})
    large = JSON + b" " * coverage.MOST_JSON
    with pytest.raises(CoverageError, match="as XML it may have more"):
        read(large, {"cart.py"})


def test_an_archive_gives_its_files_and_anything_else_itself() -> None:
    assert list(unpacked(packed({"a/coverage.xml": XML, "lcov.info": LCOV}))) == [XML, LCOV]
    assert list(unpacked(packed({}))) == []
    assert list(unpacked(LCOV)) == [LCOV]


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = packed({"coverage.xml": b"\0" * (MIB + 1)})
    assert len(bomb) < 2000
    files = unpacked(bomb, MIB)
    with pytest.raises(CoverageError, match="more than 1 MiB"):
        next(files)


def test_a_bomb_that_lies_about_its_size_is_refused_as_well() -> None:
    size = (MIB + 1).to_bytes(4, "little")
    bomb = packed({"coverage.xml": b"\0" * (MIB + 1)})
    assert bomb.count(size) == 2, "in the file's head and in the directory"
    with pytest.raises(CoverageError, match=r"broken|1 MiB"):
        list(unpacked(bomb.replace(size, (1000).to_bytes(4, "little")), MIB))


def test_too_many_files_other_packings_and_what_is_broken_are_refused() -> None:
    with pytest.raises(CoverageError, match="more than 5,000 files"):
        list(unpacked(packed({f"{n}": b"" for n in range(coverage.MOST_FILES + 1)}, zipfile.ZIP_STORED)))
    with pytest.raises(CoverageError, match="another way"):
        list(unpacked(packed({"a": XML}, zipfile.ZIP_LZMA)))
    whole = packed({"a": XML})
    for broken in (
        whole[:-30],
        whole[: len(whole) // 2],
        whole[:60] + b"\xff" * 40 + whole[100:],
        b"PK\x03\x04",
    ):
        with pytest.raises(CoverageError, match="broken"):
            list(unpacked(broken))
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(CoverageError, match="encrypted"):
        list(unpacked(bytes(encrypted)))
    with pytest.raises(CoverageError, match="more than 1 MiB"):
        list(unpacked(b" " * (MIB + 1), MIB))


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from([XML, LCOV, JSON]))
def test_whatever_is_written_into_a_report_it_is_read_or_refused(
    noise: bytes, at: int, content: bytes
) -> None:
    try:
        report = read(content[:at] + noise + content[at + len(noise) :], {"cart.py"})
    except CoverageError:
        return
    if report is not None:
        found = share([about(report, changed(1, 2, 3), TREE)])
        assert 0 <= found.run <= found.known <= 3


@given(st.binary(max_size=200), st.integers(0, 600))
def test_whatever_is_written_into_an_archive_it_is_unpacked_or_refused(noise: bytes, at: int) -> None:
    whole = packed({"coverage.xml": XML, "x": LCOV})
    try:
        list(unpacked(whole[:at] + noise + whole[at + len(noise) :]))
    except CoverageError:
        return
