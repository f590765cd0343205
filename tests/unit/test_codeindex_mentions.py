"""How uses of a name are told apart by the look of the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codespar.codeindex.covering import _CASE as CASE  # pyright: ignore[reportPrivateUsage]
from codespar.codeindex.languages import language_of
from codespar.codeindex.mentions import Use, asked, mentions


def uses(path: str, text: str, name: str = "allow") -> list[str]:
    """The kind of each use of the name, in the order of the text."""
    identifier = asked(name)
    assert identifier is not None
    return [m.use.name for m in mentions(text, path, language_of(path), "".join(identifier))]


@pytest.mark.parametrize(
    ("path", "text", "name", "expected"),
    [
        ("a.py", "allow(1)", "allow", ["CALL"]),
        ("a.py", "x = limiter.allow (key)", "allow", ["CALL"]),
        ("a.py", "@allow\ndef f(): ...", "allow", ["CALL"]),
        ("a.py", "def allow(): ...\nasync def allow(): ...\nclass allow: ...", "allow", []),
        ("a.py", "from limits import allow", "allow", ["IMPORT"]),
        ("a.py", "from limits import (\n    deny,\n    allow,\n)\nmap(allow, [])", "allow", ["IMPORT", "MENTION"]),
        ("a.py", "f(allow=1)\nallow = 2\nif allow == 2: ...", "allow", ["OTHER", "OTHER", "MENTION"]),
        ("a.py", '"""allow() says so."""\n# allow()\nx = "allow()"', "allow", ["STRING", "COMMENT", "STRING"]),
        ("a.py", "x = f\"{allow(1)} but not allow(2) {3}\"", "allow", ["CALL", "STRING"]),
        ("a.py", "x = 'it\\'s allow()' + allow()", "allow", ["STRING", "CALL"]),
        ("a.py", "disallow(1); allowed(); allow_all(); _allow(); allow2()", "allow", []),
        ("a.js", "const f = $allow(1) + allow$(2); new Limiter(1)", "Limiter", ["CALL"]),
        ("a.js", "const f = $allow(1) + allow$(2)", "allow", []),
        ("a.ts", "function allow() {}\nexport type allow = string\nconst o = {\n  async allow(x: string): number {\n  }\n}", "allow", []),
        ("a.ts", "import {\n  deny,\n  allow,\n} from './l';\nallow<Map<string, number>>(1)", "allow", ["IMPORT", "CALL"]),
        ("a.ts", "const { allow } = require('./l');\nx.map(this.allow)", "allow", ["IMPORT", "MENTION"]),
        ("a.ts", "`${allow()} and allow()`; /* allow() */ // allow()\n'http://x'; allow()", "allow", ["CALL", "STRING", "COMMENT", "COMMENT", "CALL"]),
        ("a.tsx", "return <Limiter key={1}><B.Limiter/></Limiter>", "Limiter", ["CALL"] * 3),
        ("a.tsx", "const x: Array<Limiter> = []", "Limiter", ["MENTION"]),
        ("a.go", "func (l *Limiter) allow(k string) bool {\n\treturn l.allow(k)\n}\nx := &Limiter{}", "allow", ["CALL"]),
        ("a.go", "x := &Limiter{}\nvar y []Limiter", "Limiter", ["CALL", "MENTION"]),
        ("a.go", "type I interface {\n\tallow(k string) (int, error)\n\tallow(k string) error\n}\n\tallow(k)\n", "allow", ["CALL"]),
        ("a.rs", "std::hash::go(); hash::x(); Hash::x(); x.hash()", "hash", ["MENTION", "MENTION", "CALL"]),
        ("A.java", "Limiter l = new com.acme.Limiter(1);", "Limiter", ["MENTION", "CALL"]),
        ("a.rs", "fn f<'a>(x: &'a str) { Limiter::new(); allow::<u8>(1) } // 'allow", "allow", ["CALL", "COMMENT"]),
        ("a.rs", "use crate::limits::{\n    Deny,\n    Limiter,\n};\nLimiter::new(); impl Limiter {}", "Limiter", ["IMPORT", "CALL", "MENTION"]),
        ("a.rs", "fn f() -> Limiter { Limiter { a: 1 } }\nallow![1]", "Limiter", ["MENTION", "CALL"]),
        ("a.rb", "limiter.allow? key\nallow?\nallow\n:allow", "allow?", ["CALL", "CALL"]),
        ("a.rb", "def allow?(k)\nend\nlimiter.limit = 3\nlimit == 3", "limit=", ["CALL"]),
        ("a.rb", "class A < B::Limiter; end\nLimiter.new(\"#{Limiter.x}\")", "Limiter", ["MENTION", "CALL", "MENTION"]),
        ("a.c", "#include \"allow.h\"\nint x = allow(1); /* allow(2) */ char c = '\"'; allow(3);", "allow", ["STRING", "CALL", "COMMENT", "CALL"]),
        ("a.cpp", "auto x = ns::allow(1); y->allow(2); Limiter::go();", "allow", ["CALL", "CALL"]),
        ("a.php", "#[Allow]\n$allow = $this->allow($x); # allow()\nFoo::allow();", "allow", ["CALL", "COMMENT", "CALL"]),
        ("a.kt", "val x = limiter.allow(key) // allow()", "allow", ["CALL", "COMMENT"]),
        ("a.md", "Call `allow()` or allow.", "allow", ["OTHER", "COMMENT"]),
    ],
)  # fmt: skip
def test_a_use_is_known_by_the_look_of_its_line(path: str, text: str, name: str, expected: list[str]) -> None:
    assert uses(path, text, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("allow", ("allow", "")),
        ("Limiter.allow?", ("allow", "?")),
        ("acme::Limiter::limit=", ("limit", "=")),
        ("Acme\\Limiter", ("Limiter", "")),
        ("größe", ("größe", "")),
        ("$el", ("$el", "")),
        ("operator==", None),
        ("x", None),
        ("", None),
        ("a b", None),
        ("1abc", None),
    ],
)
def test_a_name_that_is_asked_for_is_looked_for_by_its_last_part(
    name: str, expected: tuple[str, str] | None
) -> None:
    assert asked(name) == expected


def test_lines_are_counted_from_one_and_a_generated_line_ranks_low_with_a_short_snippet() -> None:
    text = "\n\nallow(1)\n" + "x;" * 3000 + "allow(2);" + "y;" * 3000
    found = list(mentions(text, "a.js", "javascript", "allow"))
    assert [(m.line, m.use) for m in found] == [(3, Use.CALL), (4, Use.OTHER)]
    assert found[0].snippet == "allow(1)" and "allow(2)" in found[1].snippet and len(found[1].snippet) <= 200


@given(st.text(alphabet="allow_$.(' \"`\n#/*{}:=xß", max_size=80))
def test_only_whole_words_are_found_whatever_stands_around_them(text: str) -> None:
    for path in ("a.py", "a.ts", "a.rb", "a.rs", "a.md"):
        for mention in mentions(text, path, language_of(path), "allow"):
            around = text[: mention.start][-1:] + text[mention.start + 5 : mention.start + 6]
            assert text[mention.start : mention.start + 5] == "allow"
            assert not any(c.isalnum() or c in "_$" for c in around)
            assert mention.line == text.count("\n", 0, mention.start) + 1


@pytest.mark.parametrize("bad", ['"', "'", "`", '"""', "/*", "*", "\\", "'\\", "{", "(<", "import {", "a "])
def test_reading_takes_linear_time_whatever_the_text(bad: str) -> None:
    text = bad * (200_000 // len(bad)) + "\nallow(1)\n"
    for path in ("a.py", "a.ts", "a.rb", "a.rs"):
        started = time.thread_time()
        list(mentions(text, path, language_of(path), "allow"))
        assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("text", "path", "language"),
    [
        ("class " + "a." * 40 + " x limiter 12\n", "contents.txt", None),
        ("limiter" + " " * 900 + "!\n", "a.py", "python"),
        (("import(\n" * 180 + ")\nlimiter,\n") * 20, "a.ts", "typescript"),
        ("limiter()" + " " * 900 + ": " + " " * 900 + "x\n", "a.js", "javascript"),
    ],
)
def test_no_text_takes_long_to_be_read(text: str, path: str, language: str | None) -> None:
    """Else a file in a repository stops everything that runs in the process."""
    begun = time.thread_time()
    assert list(mentions(text, path, language, "limiter"))
    assert time.thread_time() - begun < 1


def test_a_line_of_blanks_takes_no_long_time_to_be_known_for_no_test() -> None:
    begun = time.thread_time()
    assert not list(CASE.finditer("it" + " " * 100_000 + "x\n"))
    assert time.thread_time() - begun < 1
