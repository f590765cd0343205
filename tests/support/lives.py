"""Processes that begin with their imports done: for a test whose programs live and are killed one after another.

One process imports what they need and does nothing else; each life is a fork of it. That is a process of its own like any other, with its own
memory, threads and files, which takes milliseconds to start instead of a second and a half of a processor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_BEGINNING = """
import importlib, json, os, signal, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(order["seconds"])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.argv = ["-c", *order["arguments"]]
            exec(compile(order["program"], "<program>", "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Lives:
    """Lives of programs that use these modules. It ends with whoever made it."""

    def __init__(self, *modules: str) -> None:
        self._beginning = subprocess.Popen(
            [sys.executable, "-c", _BEGINNING, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        self._beginning.communicate()  # it ends when nobody orders any more

    def live(self, program: str, *arguments: str, said: Path, seconds: int = 180) -> int:
        """Run the program to its end, and return its exit code: minus the signal's number where one ended it, which after `seconds` is SIGALRM.
        What it says is put at the end of the file `said`."""
        assert self._beginning.stdin is not None and self._beginning.stdout is not None
        order = {"program": program, "arguments": arguments, "said": str(said), "seconds": seconds}
        self._beginning.stdin.write(json.dumps(order) + "\n")
        self._beginning.stdin.flush()
        return int(self._beginning.stdout.readline())
