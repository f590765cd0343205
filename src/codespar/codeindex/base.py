"""The code index's port: what agents may ask about a code base.

An index is a cache over one git repository: it shows one commit, and keeps what it has read of other branches. It must never be the only place where anything is kept: it can be
deleted at any time and built again from git.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What one update did."""

    files: int  # in the commit, parsed or not
    changed: int  # paths added, changed or removed since the commit indexed before
    symbols: int  # definitions known in the commit
    seconds: float
    parsed: int = 0  # files whose content had to be read, for it was not known yet


@dataclass(frozen=True, slots=True)
class Hit:
    """One place that answers a search. The higher the score, the better; scores compare within one search only."""

    path: str
    line: int  # from 1
    symbol: str | None  # the definition's name, when a definition was hit
    kind: str  # function | class | method | type | const | file | text
    snippet: str  # one line of the file
    score: float


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the index shows."""

    commit: str | None  # None: nothing was indexed yet
    files: int
    symbols: int


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition in the commit that is shown."""

    path: str
    name: str
    kind: str
    line: int  # from 1, its first
    end_line: int  # inclusive


class CodeIndex(Protocol):
    """What is known about one repository at the commit of the last `update`."""

    async def update(self, repository: Path, commit: str) -> IndexStats:
        """Make the index show `commit` of the git repository. Concurrent calls take turns. Raises `GitError` for an unknown commit."""
        ...

    async def search(self, words: str, limit: int = 20) -> list[Hit]:
        """Places that match, best first: a symbol's exact name, its beginning or parts, then paths, then text."""
        ...

    async def repository_map(self, instruction: str, budget_chars: int = 6000) -> str:
        """An outline of the files that matter most for an instruction: `path:` and indented signatures, within the budget."""
        ...

    async def state(self) -> IndexState:
        """What is shown now."""
        ...

    async def take_in(self, repository: Path, branch: str, commit: str) -> IndexStats:
        """Read what another branch has that is not known yet, so that it need not be read when it is merged. What is shown does not change."""
        ...

    async def forget(self, branch: str) -> None:
        """Let go of what only that branch has."""
        ...

    async def definitions(self, path: str) -> list[Definition]:
        """The definitions of a file, by line."""
        ...

    async def callers(self, names: Sequence[str], limit: int = 20) -> list[Hit]:
        """Places that use one of these names and are not its definition, those that call it first; `symbol` is the name that is used."""
        ...

    async def tests_of(self, paths: Sequence[str], names: Sequence[str], limit: int = 20) -> list[Hit]:
        """Tests that use one of the names or belong to one of the files, by what the code and its file names say."""
        ...

    async def close(self) -> None:
        """Let go of the file. The index may be used again afterwards: it opens again by itself."""
        ...
