"""JSON documents in a bare repository: each is a file of the commit its reference names, so that the chain of commits is its whole history.

A reference is only ever put by compare-and-swap. What is remembered in memory is remembered under the commit it was read from, which never
changes: it may be missing, and is read again then, but it can never be out of date, whoever else writes.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from codespar import git
from codespar.forges.base import ForgeError

log = structlog.get_logger(__name__)

REFS = "refs/codespar"
RACES = 20  # how often a lost compare-and-swap is tried again
MOST_LOOSE = 500  # references with a file of their own, before git is told to pack them
_REMEMBERED = 16 * 1024**2  # bytes of documents; what is made of them in memory takes several times that
_AT_ONCE = 500  # documents in one call of git, since its answer is held whole

Brief = TypeVar("Brief")
Whole = TypeVar("Whole")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Document:
    """What a document says, and the commit it was read from."""

    content: dict[str, Any]
    tip: str


async def read_document(repository: Path, ref: str, file: str) -> Document | None:
    """The document at the tip of a reference; None where there is no such reference, or no repository yet."""
    if not (repository / "HEAD").exists():
        return None
    # the commit first: one that is newer than it says has its content read, and no change of that is put on the older one
    asked = f"info {ref}\ncontents {ref}:{file}\n".encode()
    _, out = await git.run_bytes("cat-file", "--batch-command", cwd=repository, stdin=asked)
    told, _, rest = out.partition(b"\n")
    tip, _, kind = told.decode().partition(" ")
    if kind == "missing":
        return None
    ((_, content),) = _made_of(rest, lambda said: said)
    return Document(content, tip)


async def put_document(
    repository: Path,
    ref: str,
    file: str,
    content: dict[str, Any],
    *,
    before: str | None,
    at: datetime,
    beside: Mapping[str, bytes] | None = None,
) -> bool:
    """Make the reference's next commit of a document, and of the files `beside` it, if its last one is still `before` (None: there is none yet).

    False when another writer was faster. The same arguments make the same commit.
    """
    text = json.dumps(content, ensure_ascii=False, indent=1).encode()
    entries: list[str] = []
    for name, data in sorted({file: text, **(beside or {})}.items()):
        blob = await git.run("hash-object", "-w", "--stdin", cwd=repository, stdin=data)
        entries.append(f"100644 blob {blob}\t{name}\n")
    tree = await git.run("mktree", cwd=repository, stdin="".join(entries).encode())
    subject = f"{ref.removeprefix(f'{REFS}/')}\n"
    commit = await git.commit_tree(repository, tree, [before] if before else [], subject, "CodeSpar", at)
    code, _ = await git.run_bytes(
        "update-ref", ref, commit, before or "", cwd=repository, ok_codes=(0, 1, 128)
    )
    return code == 0


async def pack_references(repository: Path, *prefixes: str) -> bool:
    """Have git keep the references in one file, where there are many with a file of their own: to list those costs little.

    It can take a minute the first time, and nothing depends on it: False when git could not, which is logged.
    """
    if not any([await asyncio.to_thread(_many_in, repository / prefix) for prefix in prefixes]):
        return True
    try:
        await git.run("pack-refs", "--all", cwd=repository)
    except (
        git.GitError
    ) as error:  # another process packs them, or one was killed while it did and left its lock
        log.warning("records.not_packed", repository=str(repository), error=str(error))
        return False
    return True


class Shelf(Generic[Brief, Whole]):
    """Every document of one `file` name under a prefix of references, of which only those are read that moved since the last look.

    `brief` says what is to be known of all of them; it is small and always remembered. `whole` is what is made of a document for who asks for
    it, and remembered as far as `_REMEMBERED` goes, the least used forgotten first.
    """

    def __init__(
        self,
        repository: Path,
        prefix: str,
        file: str,
        brief: Callable[[dict[str, Any]], Brief],
        whole: Callable[[dict[str, Any]], Whole],
    ) -> None:
        self._repository = repository
        self._prefix = prefix
        self._file = file
        self._make_brief = brief
        self._make_whole = whole
        self._briefs: dict[str, Brief] = {}
        self._wholes: OrderedDict[str, tuple[int, Whole]] = (
            OrderedDict()
        )  # by commit: bytes, and what it says
        self._held = 0  # bytes
        self._listed = b""  # what git said of the references when `_briefs` was made

    async def briefs(self) -> Mapping[str, Brief]:
        """The brief of each document that is there now, by the commit it stands in. In no order."""
        listed = await self._list()
        if listed == self._listed:
            return self._briefs
        known, tips = self._briefs, listed.decode().split()
        found = {tip: known[tip] for tip in tips if tip in known}
        async for tip, _, brief in self._read([tip for tip in tips if tip not in known], self._make_brief):
            found[tip] = brief
        self._briefs, self._listed = found, listed
        return found

    async def wholes(self, tips: Sequence[str]) -> list[Whole]:
        """What the documents in these commits say, in their order."""
        found: dict[str, Whole] = {}
        for tip in tips:
            if tip in self._wholes:
                self._wholes.move_to_end(tip)
                found[tip] = self._wholes[tip][1]
        async for tip, size, whole in self._read([tip for tip in tips if tip not in found], self._make_whole):
            found[tip] = whole
            self._remember(tip, size, whole)
        return [found[tip] for tip in tips]

    def _remember(self, tip: str, size: int, whole: Whole) -> None:
        if tip in self._wholes or size > _REMEMBERED:
            return
        self._wholes[tip] = (size, whole)
        self._held += size
        while self._held > _REMEMBERED:
            _, (forgotten, _) = self._wholes.popitem(last=False)
            self._held -= forgotten

    async def _list(self) -> bytes:
        """The commits of all references, as git lists them."""
        if not (self._repository / "HEAD").exists():
            return b""
        wanted = ("for-each-ref", "--format=%(objectname)", self._prefix)
        return (await git.run_bytes(*wanted, cwd=self._repository))[1]

    async def _read(
        self, tips: Sequence[str], make: Callable[[dict[str, Any]], Made]
    ) -> AsyncIterator[tuple[str, int, Made]]:
        """Each commit, how many bytes its document has, and what is made of it."""
        for start in range(0, len(tips), _AT_ONCE):
            some = tips[start : start + _AT_ONCE]
            asked = "".join(f"{tip}:{self._file}\n" for tip in some).encode()
            _, out = await git.run_bytes("cat-file", "--batch", cwd=self._repository, stdin=asked)
            for tip, (size, made) in zip(some, await asyncio.to_thread(_made_of, out, make), strict=True):
                yield tip, size, made


def _made_of(out: bytes, make: Callable[[dict[str, Any]], Made]) -> list[tuple[int, Made]]:
    """What is made of each document that `git cat-file --batch` printed: its size at the end of a line, its content, and a line feed."""
    found: list[tuple[int, Made]] = []
    place = 0
    while place < len(out):
        start = out.index(b"\n", place) + 1
        asked, *_, size = out[place:start].split()
        if size == b"missing":
            raise ForgeError(
                f"{asked.decode()} is not there, though a reference under {REFS} names its commit: CodeSpar did not make it; "
                "delete that reference (git update-ref -d)"
            )
        end = start + int(size)
        found.append((int(size), make(json.loads(out[start:end]))))
        place = end + 1
    return found


def _many_in(folder: Path) -> bool:
    """Whether more than `MOST_LOOSE` references have a file of their own there."""
    try:
        with os.scandir(folder) as entries:
            return next(islice(entries, MOST_LOOSE, None), None) is not None
    except FileNotFoundError:  # none has
        return False
