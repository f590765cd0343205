"""What the index takes from a file's bytes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from codespar.codeindex.extract import MAX_BYTES, Source, extract, parts
from codespar.codeindex.lookup import Question

SAMPLES = {
    "python": (b"LIMIT = 3\nclass A:\n    @x\n    def run(self): ...\ndef go(): ...\n", {("LIMIT", "const", 1), ("A", "class", 2), ("run", "method", 4), ("go", "function", 5)}),
    "javascript": (b"export const N = 1;\nconst f = () => 1;\nclass A { run() {} }\nfunction go() {}\n", {("N", "const", 1), ("f", "function", 2), ("A", "class", 3), ("run", "method", 3), ("go", "function", 4)}),
    "typescript": (b"interface I { m(): void }\ntype T = string;\nenum E { A }\nabstract class B {}\n", {("I", "type", 1), ("m", "method", 1), ("T", "type", 2), ("E", "type", 3), ("B", "class", 4)}),
    "tsx": (b"export function App() { return <p>hi</p>; }\n", {("App", "function", 1)}),
    "go": (b"package p\nconst N = 1\ntype S struct{}\nfunc (s *S) Run() {}\nfunc Go() {}\n", {("N", "const", 2), ("S", "type", 3), ("Run", "method", 4), ("Go", "function", 5)}),
    "java": (b"class A {\n  static final int N = 1;\n  A() {}\n  void run() {}\n}\ninterface I {}\n", {("A", "class", 1), ("N", "const", 2), ("A", "method", 3), ("run", "method", 4), ("I", "type", 6)}),
    "rust": (b"struct S;\nimpl S { fn run(&self) {} }\nfn go() {}\nconst N: u8 = 1;\ntrait T {}\n", {("S", "type", 1), ("run", "method", 2), ("go", "function", 3), ("N", "const", 4), ("T", "type", 5)}),
    "ruby": (b"module M\n  class A\n    N = 1\n    def run; end\n  end\nend\n", {("M", "class", 1), ("A", "class", 2), ("N", "const", 3), ("run", "method", 4)}),
    "c": (b"#define N 1\nstruct s { int a; };\nstatic char *go(int a) { return 0; }\n", {("N", "const", 1), ("s", "type", 2), ("go", "function", 3)}),
    "cpp": (b"namespace n { namespace m { class A { void run() {} }; } }\nvoid A::far() {}\n", {("A", "class", 1), ("run", "method", 1), ("far", "method", 2)}),
    "php": (b"<?php\nconst N = 1;\nclass A { function run() {} }\nfunction go() {}\n", {("N", "const", 2), ("A", "class", 3), ("run", "method", 3), ("go", "function", 4)}),
}  # fmt: skip


@pytest.mark.parametrize("language", SAMPLES)
def test_definitions_of_every_language_are_found_with_kind_and_line(language: str) -> None:
    data, expected = SAMPLES[language]
    content = extract(Source("k", language, data))
    assert {symbol[:3] for symbol in content.symbols} == expected


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("rateLimiter", ("rate", "limiter")),
        ("rate_limiter", ("rate", "limiter")),
        ("HTTPServer", ("http", "server")),
        ("MAX_SIZE2", ("max", "size", "2")),
        ("größe", ("größe",)),
    ],
)
def test_identifiers_are_split_into_their_words(identifier: str, expected: tuple[str, ...]) -> None:
    assert "".join(parts(identifier)) == "".join(expected)
    if identifier.isascii():
        assert parts(identifier) == expected


@pytest.mark.parametrize(
    "data",
    [b"a\0b", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", b"x" * (MAX_BYTES + 1), None],
    ids=["binary", "lfs", "huge", "unread"],
)
def test_what_is_not_text_of_ours_is_kept_without_content(data: bytes | None) -> None:
    content = extract(Source("k", "python", data))
    assert (content.text, content.symbols, content.words) == (b"", (), "")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "@a\n@b(\n  1)\nasync def go(\n  x,\n):\n    return 1\n\n\nX = [\n 1,\n]\n", {"go": (1, 7), "X": (10, 12)}),
        ("c", "static int\ngo(int a)\n{\n  return 0;\n}\nint *far(void);\n", {"go": (1, 5), "far": (6, 6)}),
        ("cpp", "template <class T>\nint A<T>::go(int a)\n{\n  return 0;\n}\n", {"go": (1, 5)}),
        ("typescript", "@Dec()\nexport class A {\n  go() {\n  }\n}\nexport const f = () => {\n};\n", {"A": (1, 5), "go": (3, 4), "f": (6, 7)}),
        ("go", "package p\n\nfunc (s *S) Run(\n\ta int,\n) {\n}\n", {"Run": (3, 6)}),
        ("rust", "#[derive(A)]\n#[b]\nstruct S {\n}\n", {"S": (1, 4)}),
        ("ruby", "class A\n  def go\n    1\n  end\nend\n", {"A": (1, 5), "go": (2, 4)}),
        ("php", "<?php\n#[A]\nfunction go()\n{\n}\n", {"go": (2, 5)}),
        ("javascript", "function go() {\r\n}\r\n", {"go": (1, 2)}),
        ("python", "def go():\n  return 1", {"go": (1, 2)}),
    ],
)  # fmt: skip
def test_a_definition_reaches_from_what_decorates_it_to_its_end(
    language: str, text: str, expected: dict[str, tuple[int, int]]
) -> None:
    symbols = extract(Source("k", language, text.encode())).symbols
    assert {name: (line - above, line + below) for name, _, line, _, above, below in symbols} == expected


def test_a_file_of_very_many_definitions_takes_no_more_time_for_each() -> None:
    started = time.thread_time()
    assert len(extract(Source("k", "python", b"def go(): ...\n" * 20_000)).symbols) == 5000
    assert time.thread_time() - started < 5


def test_broken_syntax_and_broken_encoding_still_give_words() -> None:
    assert "needle" in extract(Source("k", "python", b"def (((\xff needle")).words.split()


def test_a_question_is_never_query_syntax() -> None:
    question = Question.of('NEAR("a" OR *) AND where: is -- the rateLimits\'')
    assert all(term.isalnum() for term in question.terms)
    assert "limit" in question.terms and "where" not in question.terms


def test_importing_the_package_loads_no_grammar() -> None:
    code = "import sys, codespar.codeindex, codespar.codeindex.base; assert not any('tree_sitter' in m or 'pydantic' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
