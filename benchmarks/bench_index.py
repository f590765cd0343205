"""How fast the code index is: a first build, an update by one commit, and lookups.

The repository is made here: 3,000 files of the indexed languages, 60 to 150 lines each, the same at every run. The build is set against a
bare `git cat-file --batch` that reads the same blobs and does nothing with them.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from codespar import git
from codespar.codeindex.index import SqliteCodeIndex

FILES = 3000
CHANGED = 10
UPDATES = 15
LOOKUPS = 400
VERBS = [
    "get",
    "set",
    "load",
    "store",
    "parse",
    "render",
    "send",
    "fetch",
    "build",
    "merge",
    "check",
    "apply",
    "open",
    "close",
    "start",
    "stop",
    "find",
    "list",
    "update",
    "remove",
]
NOUNS = [
    "user",
    "order",
    "invoice",
    "rate",
    "limit",
    "token",
    "session",
    "cache",
    "queue",
    "worker",
    "report",
    "payment",
    "account",
    "ledger",
    "event",
    "alert",
    "deploy",
    "branch",
    "commit",
    "review",
    "plan",
    "budget",
    "channel",
    "message",
    "webhook",
    "header",
    "cookie",
    "route",
    "policy",
    "role",
    "audit",
    "index",
    "symbol",
    "graph",
    "node",
    "edge",
    "batch",
]
PROSE = [
    "the",
    "a",
    "when",
    "every",
    "once",
    "before",
    "after",
    "never",
    "always",
    "retry",
    "caller",
    "holds",
    "waits",
    "until",
    "each",
    "old",
    "new",
    "empty",
    "missing",
    "first",
    "last",
    "slow",
    "fast",
    "because",
    "keeps",
    "drops",
    "counts",
    "returns",
    "value",
    "input",
    "output",
    "state",
    "disk",
    "memory",
    "network",
    "clock",
    "reader",
    "writer",
    "owner",
    *NOUNS[::4],
]
# For each language: ending, file head, a type, a function within it, what ends the type, one statement.
SHAPES: dict[str, tuple[str, str, str, str, str, str]] = {
    "py": (
        '"""{doc}."""\n\nimport {module}\n\n{CONST} = {n}\n',
        "\n\nclass {Type}:\n    " + '"""{doc}."""\n',
        "\n    def {snake}(self, {a}, {b}=None):\n",
        "",
        "        {a} = {call_snake}({b}, {n})  # {doc}\n",
        "        return {a}\n",
    ),
    "ts": (
        "import {{ {Other} }} from './{module}';\n\nexport const {CONST} = {n};\n",
        "\n/** {doc} */\nexport class {Type} {{\n",
        "  {camel}({a}: string, {b}: number): string {{\n",
        "}}\n",
        "    {a} = {call}({b} + {n}); // {doc}\n",
        "    return {a};\n  }}\n",
    ),
    "js": (
        "import {{ {call} }} from './{module}.js';\n\nexport const {CONST} = {n};\n",
        "\n// {doc}\nexport class {Type} {{\n",
        "  {camel}({a}, {b}) {{\n",
        "}}\n",
        "    {a} = {call}({b} + {n}); // {doc}\n",
        "    return {a};\n  }}\n",
    ),
    "go": (
        "package {module}\n\nconst {CONST} = {n}\n",
        "\n// {Type}: {doc}.\ntype {Type} struct {{\n\t{a} string\n\t{b} int\n}}\n",
        "\nfunc (t *{Type}) {camel}({a} string, {b} int) string {{\n",
        "",
        "\t{a} = {call}({b}, {n}) // {doc}\n",
        "\treturn {a}\n}}\n",
    ),
    "java": (
        "package com.acme.{module};\n",
        "\n/** {doc}. */\nfinal class {Type} {{\n    static final int {CONST} = {n};\n",
        "\n    public String {camel}(String {a}, int {b}) {{\n",
        "}}\n",
        "        {a} = {Other}.{call}({b}, {n}); // {doc}\n",
        "        return {a};\n    }}\n",
    ),
    "rs": (
        "use crate::{module}::{Other};\n\npub const {CONST}: u32 = {n};\n",
        "\n/// {doc}\npub struct {Type} {{\n    {a}: String,\n}}\n\nimpl {Type} {{\n",
        "    pub fn {snake}(&self, {a}: &str, {b}: u32) -> String {{\n",
        "}}\n",
        "        let {a} = {Other}::{call_snake}({b} + {n}); // {doc}\n",
        "        {a}\n    }}\n",
    ),
    "rb": (
        "require '{module}'\n\n{CONST} = {n}\n",
        "\n# {doc}\nclass {Type}\n",
        "  def {snake}({a}, {b} = nil)\n",
        "end\n",
        "    {a} = {Other}.{call_snake}({b}, {n}) # {doc}\n",
        "    {a}\n  end\n",
    ),
    "c": (
        '#include "{module}.h"\n\n#define {CONST} {n}\n',
        "\n/* {doc} */\nstruct {Type} {{\n    int {a};\n    int {b};\n}};\n",
        "\nstatic int {snake}(struct {Type} *self, int {a}, int {b})\n{{\n",
        "",
        "    {a} = {call_snake}({b}, {n}); /* {doc} */\n",
        "    return {a};\n}}\n",
    ),
    "cpp": (
        '#include "{module}.hpp"\n\n#define {CONST} {n}\n',
        "\n// {doc}\nclass {Type} {{\npublic:\n",
        "    int {camel}(int {a}, int {b}) {{\n",
        "}};\n",
        "        {a} = {call}({b}, {n}); // {doc}\n",
        "        return {a};\n    }}\n",
    ),
    "php": (
        "<?php\n\nnamespace Acme;\n\nconst {CONST} = {n};\n",
        "\n/** {doc} */\nclass {Type}\n{{\n",
        "    public function {camel}(${a}, ${b} = null)\n    {{\n",
        "}}\n",
        "        ${a} = {call}(${b}, {n}); // {doc}\n",
        "        return ${a};\n    }}\n",
    ),
}


def _names(chance: random.Random) -> dict[str, str]:
    verb, noun, more = chance.choice(VERBS), chance.choice(NOUNS), chance.choice(NOUNS)
    call, object_, last = chance.choice(VERBS), chance.choice(NOUNS), chance.choice(NOUNS)
    return {
        "snake": f"{verb}_{noun}_{more}",
        "camel": f"{verb}{noun.title()}{more.title()}",
        "call": f"{call}{object_.title()}{last.title()}",
        "call_snake": f"{call}_{object_}_{last}",
        "Other": object_.title() + last.title(),
        "CONST": f"{noun}_{last}_MAX".upper(),
        "module": object_,
        "a": noun,
        "b": f"{more}_{last}",
        "n": str(chance.randrange(1000)),
        "doc": " ".join(chance.sample(PROSE, 5)),
    }


def source(ending: str, number: int) -> str:
    """One file of 60 to 150 lines; `number` decides everything in it."""
    chance = random.Random(number)
    wanted = chance.randint(60, 150)
    head, type_, function, end, statement, last = SHAPES[ending]
    text = head.format(**_names(chance))
    while text.count("\n") < wanted - 8:
        own = chance.choice(NOUNS).title() + chance.choice(NOUNS).title() + str(number % 97)
        text += type_.format(**_names(chance), Type=own)
        for _ in range(chance.randint(3, 6)):
            names = _names(chance)
            text += function.format(**names, Type=own)
            for _ in range(chance.randint(2, 6)):
                text += statement.format(**(_names(chance) | {"a": names["a"], "b": names["b"]}))
            text += last.format(**names)
            if text.count("\n") >= wanted - 8:
                break
        text += end.format()
    return text


def _path(number: int) -> str:
    endings = list(SHAPES)
    folder = NOUNS[number % len(NOUNS)]
    return f"src/{folder}/{NOUNS[(number // 7) % len(NOUNS)]}_{number}.{endings[number % len(endings)]}"


def _run(folder: Path, *arguments: str, given: bytes | None = None) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=git.environment(), input=given, check=True, capture_output=True
    ).stdout


def _commit(folder: Path, message: str) -> str:
    _run(folder, "add", "-A")
    _run(folder, "commit", "-q", "-m", message)
    return _run(folder, "rev-parse", "HEAD").decode().strip()


def _bare_read(folder: Path) -> float:
    """Files a second that `git cat-file --batch` alone gives: the best of three."""
    entries = _run(folder, "ls-tree", "-r", "HEAD").decode().splitlines()
    names = "".join(entry.split()[2] + "\n" for entry in entries).encode()
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        _run(folder, "cat-file", "--batch", "--buffer", given=names)
        best = max(best, len(entries) / (time.perf_counter() - started))
    return best


async def _measure(folder: Path) -> list[dict[str, Any]]:
    repository = folder / "repository"
    for number in range(FILES):
        path = repository / _path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source(path.suffix[1:], number))
    _run(repository, "init", "-q")
    commit = _commit(repository, "all")
    _run(repository, "repack", "-adq")
    index = SqliteCodeIndex(folder / "index.sqlite")
    bare = _bare_read(repository)
    built = await index.update(repository, commit)
    rate = built.files / built.seconds

    updates: list[float] = []
    for turn in range(UPDATES):
        for number in range(turn * CHANGED, (turn + 1) * CHANGED):
            path = repository / _path(number)
            path.write_text(source(path.suffix[1:], number + 100_000 * (turn + 1)))
        commit = _commit(repository, f"change {turn}")
        updates.append((await index.update(repository, commit)).seconds * 1000)

    chance = random.Random(5)
    lookups: list[float] = []
    for turn in range(LOOKUPS):
        names = _names(chance)
        words = (
            names["camel"],
            names["snake"].replace("_", " "),
            names["a"],
            f"where is the {names['doc']} checked",
        )[turn % 4]
        started = time.perf_counter()
        await index.search(words)
        lookups.append((time.perf_counter() - started) * 1000)
    await index.close()
    update = statistics.median(updates)
    p99 = statistics.quantiles(lookups, n=100)[98]
    return [
        {
            "name": "index_build",
            "value": round(rate),
            "unit": "files/s",
            "against": f"git cat-file --batch of the same blobs, unused: {bare:.0f} files/s",
            "ratio": round(rate / bare, 3),
            "goal": ">= 1000 files/s",
            "ok": rate >= 1000,
        },
        {
            "name": "index_update",
            "value": round(update, 1),
            "unit": "ms",
            "against": f"a first build of the same repository: {built.seconds * 1000:.0f} ms",
            "ratio": round(update / (built.seconds * 1000), 4),
            "goal": "<= 100 ms",
            "ok": update <= 100,
        },
        {
            "name": "index_lookup",
            "value": round(p99, 2),
            "unit": "ms",
            "against": f"the median lookup in the same run: {statistics.median(lookups):.2f} ms",
            "ratio": round(p99 / statistics.median(lookups), 2),
            "goal": "<= 20 ms",
            "ok": p99 <= 20,
        },
    ]


def run() -> list[dict[str, Any]]:
    """Measure; one row a figure. `index_update` is the median of 15 commits of 10 files, `index_lookup` the 99th percentile of 400."""
    with tempfile.TemporaryDirectory(prefix="codespar-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))
