"""Who calls what and which tests are whose, asked of an index of real git repositories."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from codespar.codeindex.base import Definition
from codespar.codeindex.index import SqliteCodeIndex
from integration.test_codeindex import commit

SHOP: dict[str, str | None] = {
    "shop/limits.py": (
        '"""Limits."""\n\n\nclass RateLimiter:\n    @property\n    def budget(self):\n        return 1\n\n'
        "    def get(self, key):\n        # get is called often\n        return self.get_all()[key]\n\n\n"
        "@cache\ndef allow(key):\n    return RateLimiter().get(key)\n"
    ),
    "shop/app.py": "from shop.limits import allow\n\n\ndef serve(key):\n    budget = allow(key)\n    return budget\n",
    "shop/table.py": "HANDLERS = {'x': allow}\ntext = 'allow(x)'\nget_all = 1\n",
    "other/far.py": "from shop.limits import allow\nallow('far')\ndisallow('near')\n",
    "web/cart.ts": "import { allow } from './limits';\nexport function addToCart(id: string) {\n  return allow(id);\n}\n",
    "web/cart.test.ts": "import { addToCart } from './cart';\ndescribe('cart', () => {\n  it('adds one', () => {\n    addToCart('a');\n  });\n});\n",
    "pkg/queue.go": "package pkg\n\ntype Queue struct{}\n\nfunc (q *Queue) Take(n int) int {\n\treturn n\n}\n",
    "pkg/queue_test.go": "package pkg\n\nimport \"testing\"\n\nfunc TestTake(t *testing.T) {\n\t(&Queue{}).Take(1)\n}\n",
    "src/main/java/acme/Ledger.java": "package acme;\n\n/** A ledger. */\n@Deprecated\npublic class Ledger {\n  @Override\n  public int total(int a) {\n    return a;\n  }\n}\n",
    "src/test/java/acme/LedgerTest.java": "package acme;\n\nclass LedgerTest {\n  @Test\n  void adds() {\n    new Ledger().total(1);\n  }\n}\n",
    "lib/plan.rb": "class Plan\n  def ready?\n    true\n  end\nend\n",
    "lib/go.rb": "def go(plan)\n  plan.ready? && go\nend\n",
    "spec/plan_spec.rb": "RSpec.describe Plan do\n  it 'is ready' do\n    expect(Plan.new.ready?).to be true\n  end\nend\n",
    "src/edge.rs": "/// Edge.\n#[derive(Debug)]\npub struct Edge {\n    a: u8,\n}\n\npub fn weigh(e: &Edge) -> u8 {\n    e.a\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn weighs() {\n        super::weigh(&super::Edge { a: 1 });\n    }\n}\n",
    "tests/unit/test_limits.py": "from shop.limits import allow\n\n\ndef test_allow_refuses():\n    assert not allow('x')\n",
    "tests/test_far.py": "def test_far():\n    allow('far')\n\n\ndef test_near():\n    # allow\n    pass\n",
    "docs/limits.md": "Call `allow(key)` first.\n",
}  # fmt: skip


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteCodeIndex]:
    made = SqliteCodeIndex(tmp_path / "cache" / "index.sqlite")
    await made.update(tmp_path / "r", commit(tmp_path / "r", SHOP))
    yield made
    await made.close()


async def test_the_state_is_that_of_the_shown_commit(tmp_path: Path, index: SqliteCodeIndex) -> None:
    fresh = SqliteCodeIndex(tmp_path / "fresh.sqlite")
    assert (await fresh.state()).commit is None and (await fresh.state()).files == 0
    await fresh.close()
    head = commit(tmp_path / "r", {"docs/limits.md": None})
    stats = await index.update(tmp_path / "r", head)
    state = await index.state()
    assert (state.commit, state.files, state.symbols) == (head, len(SHOP) - 1, stats.symbols)


async def test_definitions_tell_their_first_and_last_line_with_what_decorates_them(
    index: SqliteCodeIndex,
) -> None:
    assert await index.definitions("shop/limits.py") == [
        Definition("shop/limits.py", "RateLimiter", "class", 4, 11),
        Definition("shop/limits.py", "budget", "method", 5, 7),
        Definition("shop/limits.py", "get", "method", 9, 11),
        Definition("shop/limits.py", "allow", "function", 14, 16),
    ]
    java = {(d.name, d.line, d.end_line) for d in await index.definitions("src/main/java/acme/Ledger.java")}
    assert java == {("Ledger", 4, 10), ("total", 6, 9)}
    rust = {(d.name, d.line, d.end_line) for d in await index.definitions("src/edge.rs")}
    assert {("Edge", 2, 5), ("weigh", 7, 9), ("weighs", 13, 16)} <= rust
    for nothing in ("docs/limits.md", "no/such.py", "", "\udcff", "shop"):
        assert await index.definitions(nothing) == []


async def test_callers_come_first_then_mentions_then_imports_then_what_is_only_said(
    index: SqliteCodeIndex,
) -> None:
    hits = await index.callers(["allow"])
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.symbol == "allow" for hit in hits)
    places = [(hit.path, hit.line) for hit in hits]
    assert places[0] == ("shop/app.py", 5) and hits[0].snippet == "budget = allow(key)"
    assert places.index(("other/far.py", 2)) < places.index(
        ("tests/test_far.py", 2)
    )  # tests after the product
    assert places.index(("tests/test_far.py", 2)) < places.index(
        ("shop/table.py", 1)
    )  # calls before mentions
    assert places.index(("shop/table.py", 1)) < places.index(("shop/app.py", 1))  # and those before imports
    assert places.index(("shop/app.py", 1)) < places.index(("shop/table.py", 2))
    assert ("docs/limits.md", 1) in places
    assert ("shop/limits.py", 15) not in places and ("other/far.py", 3) not in places
    assert len(await index.callers(["allow"], limit=2)) == 2


async def test_a_name_is_never_found_within_another(index: SqliteCodeIndex) -> None:
    assert {(hit.path, hit.line) for hit in await index.callers(["get"])} == {
        ("shop/limits.py", 10),
        ("shop/limits.py", 16),
    }
    assert await index.callers(["all"]) == [] and await index.callers(["low"]) == []


async def test_callers_of_several_names_are_all_heard_and_odd_names_are_no_error(
    index: SqliteCodeIndex,
) -> None:
    hits = await index.callers(["allow", "Queue.Take", "Plan", "ready?", "Ledger", "weigh"], limit=6)
    assert {"allow", "Queue.Take", "Plan", "ready?", "Ledger", "weigh"} == {hit.symbol for hit in hits}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    odd = ["", " ", "x", '" OR "', "operator==", "\0", "\udcff", "%", "a" * 5000, "𞤀𞤁𞤂", "²³", "größe", "__"]
    assert await index.callers(odd) == []
    assert await index.callers([]) == [] and await index.callers(["allow"], limit=0) == []
    assert await index.callers(["allow"] * 1000, limit=3)


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("shop/limits.py", "allow", ("tests/unit/test_limits.py", 4, "test_allow_refuses")),
        ("web/cart.ts", "addToCart", ("web/cart.test.ts", 3, None)),
        ("pkg/queue.go", "Take", ("pkg/queue_test.go", 5, "TestTake")),
        ("src/main/java/acme/Ledger.java", "total", ("src/test/java/acme/LedgerTest.java", 5, "adds")),
        ("lib/plan.rb", "ready?", ("spec/plan_spec.rb", 2, None)),
        ("src/edge.rs", "weigh", ("src/edge.rs", 14, "weighs")),
    ],
)
async def test_the_test_that_uses_a_changed_name_is_told_in_every_language(
    index: SqliteCodeIndex, path: str, name: str, expected: tuple[str, int, str | None]
) -> None:
    hits = await index.tests_of([path], [name])
    assert (hits[0].path, hits[0].line, hits[0].symbol) == expected


async def test_a_files_tests_are_told_by_their_names_where_no_name_is_used(index: SqliteCodeIndex) -> None:
    hits = await index.tests_of(["shop/limits.py", "pkg/queue.go"], [])
    assert {(hit.path, hit.kind) for hit in hits} == {
        ("tests/unit/test_limits.py", "file"),
        ("pkg/queue_test.go", "file"),
    }
    assert [hit.path for hit in await index.tests_of(["src/edge.rs"], [])] == ["src/edge.rs"]
    by_name = await index.tests_of([], ["allow"])
    assert {(hit.path, hit.symbol) for hit in by_name} == {
        ("tests/unit/test_limits.py", "test_allow_refuses"),
        ("tests/test_far.py", "test_far"),
    }
    assert (
        await index.tests_of([], []) == []
        and await index.tests_of(["shop/limits.py"], ["allow"], limit=0) == []
    )
    assert await index.tests_of(["\udcff", "", "nowhere.py", "a\0b"], ["nothing_at_all"]) == []


async def test_a_name_in_very_many_files_is_answered_in_bounded_time_from_the_nearest(tmp_path: Path) -> None:
    files: dict[str, str | None] = {
        f"m{n % 50}/f{n}.py": f"from z.core import get\n\n\ndef work_{n}():\n    return get({n})\n"
        for n in range(1500)
    }
    files |= {"z/core.py": "def get(n): ...\n", "z/near.py": "from z.core import get\nget(0)\n"}
    files["z/only.py"] = "get_user_of_all = 1\nprint(get_user_of_all)\n"
    index = SqliteCodeIndex(tmp_path / "index.sqlite")
    await index.update(tmp_path / "r", commit(tmp_path / "r", files))
    others = [
        f"absent{n}" for n in range(39)
    ]  # with them, fewer files are scanned for each name than have it
    for names in (["get"], ["get", *others]):
        started = time.process_time()  # our own: the machine may be busy
        hits = await index.callers(names)
        assert time.process_time() - started < 2
        assert hits[0].path == "z/near.py" and [hit.snippet[:10] for hit in hits[1:12]] == ["return get"] * 11
    assert [hit.line for hit in await index.callers(["get_user_of_all"])] == [2]
    await index.close()
