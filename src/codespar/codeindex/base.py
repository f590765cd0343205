"""The code index's port: what agents may ask about a code base.

An index is a cache over one git repository at one commit. It must never be the only place where anything is kept: it can be
deleted at any time and built again from git.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Hit:
    """One place that answers a search. The higher the score, the better; scores compare within one search only."""

    path: str
    line: int  # from 1
    symbol: str | None  # the definition's name, when a definition was hit
    kind: str  # function | class | method | type | const | file | text
    snippet: str  # one line of the file
    score: float


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

    async def close(self) -> None:
        """Let go of the file. The index may be used again afterwards: it opens again by itself."""
        ...
