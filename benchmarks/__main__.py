"""Runs the benchmarks and prints one JSON object a line for each figure.

A benchmark is a module `benchmarks/bench_<name>.py` with `run() -> list[dict]`; each dict has exactly the keys of `KEYS`. Each module
runs in a process of its own, so that none warms up, slows down or breaks another. Standard output carries the figures and nothing else.
Exit code: 0 when all ran (a missed goal is `"ok": false`, not an error), 1 when one broke, 2 for a name there is none of.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
KEYS = ("name", "value", "unit", "against", "ratio", "goal", "ok")


def names() -> list[str]:
    """Every benchmark there is, by file name."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def rows_of(name: str) -> list[dict[str, Any]]:
    """Run one benchmark here and return its figures. What it prints goes to standard error. Raises `ValueError` for a malformed figure."""
    sys.path.append(str(FOLDER.parent / "tests"))  # the played platforms import each other as the tests do
    module = importlib.import_module(f"benchmarks.bench_{name}")
    with contextlib.redirect_stdout(sys.stderr):
        rows: list[dict[str, Any]] = module.run()
    for row in rows:
        if set(row) != set(KEYS) or not isinstance(row["ok"], bool):
            raise ValueError(
                f"benchmark {name} returned {row!r}; a figure has the keys {', '.join(KEYS)}, and `ok` is a bool"
            )
    return rows


def run_apart(name: str) -> bool:
    """Run one benchmark in its own process, its figures on our standard output. Returns whether it ran to its end."""
    code = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--here", name],
        cwd=FOLDER.parent,
        stdin=subprocess.DEVNULL,
        check=False,
    ).returncode
    if code != 0:
        print(f"benchmark {name} broke (exit code {code}); its error is above", file=sys.stderr)
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run the benchmarks: one JSON object a line."
    )
    parser.add_argument(
        "--only", metavar="NAME", help="run this one: " + (", ".join(names()) or "there are none yet")
    )
    parser.add_argument("--here", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        for row in rows_of(arguments.here):
            print(json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False), flush=True)
        return 0
    chosen = [str(arguments.only)] if arguments.only else names()
    if unknown := set(chosen) - set(names()):
        print(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    broken = [name for name in chosen if not run_apart(name)]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
