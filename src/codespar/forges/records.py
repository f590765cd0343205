"""Pull requests kept in git: under refs/codespar/pulls/<n>, one commit chain a pull request, whose tree is `pull.json`.

The chain is the record's whole history. Numbers and changes are settled by compare-and-swap on the reference, so that several writers can
never lose each other's, and each change has a key under which it is made once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from codespar import git
from codespar.forges.base import ForgeError, PullRequest, PullRequestNotFound

PULLS = "refs/codespar/pulls"
RACES = 20  # how often a lost compare-and-swap is tried again


class PullRecords:
    """The records in one bare repository. `repository` need not exist yet: then there are none."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    async def all(self) -> list[PullRequest]:
        """Every pull request, newest first."""
        if not (self._repository / "HEAD").exists():
            return []
        refs = (await git.run("for-each-ref", "--format=%(refname)", PULLS, cwd=self._repository)).split()
        if not refs:
            return []
        asked = "".join(f"{ref}:pull.json\n" for ref in refs).encode()
        _, out = await git.run_bytes("cat-file", "--batch", cwd=self._repository, stdin=asked)
        pulls: list[PullRequest] = []
        while out:
            head, _, rest = out.partition(b"\n")
            size = int(head.split()[-1])
            pulls.append(PullRequest.model_validate(json.loads(rest[:size])["pull"]))
            out = rest[size + 1 :]
        return sorted(pulls, key=lambda pull: -pull.number)

    async def get(self, number: int) -> PullRequest:
        """One pull request. Raises `PullRequestNotFound`."""
        record, _ = await self._read(number)
        return PullRequest.model_validate(record["pull"])

    async def add(
        self, known: Callable[[PullRequest], bool], make: Callable[[int], PullRequest]
    ) -> PullRequest:
        """The one that is `known` already, or a new one under the next number."""
        for _ in range(RACES):
            there = await self.all()
            for pull in there:
                if known(pull):
                    return pull
            pull = make(max((pull.number for pull in there), default=0) + 1)
            if await self._write(pull.number, {"pull": pull.wire(), "keys": []}, None, pull.created_at):
                return pull
        raise ForgeError("no pull request number could be had: too many are opened at once; retry")

    async def change(
        self, number: int, key: str, change: Callable[[PullRequest], PullRequest], at: datetime
    ) -> PullRequest:
        """Change one, once under each `key`. Raises `PullRequestNotFound`, and whatever `change` raises."""
        for _ in range(RACES):
            record, tip = await self._read(number)
            pull = PullRequest.model_validate(record["pull"])
            if key in record["keys"]:
                return pull
            changed = change(pull)
            body = {"pull": changed.wire(), "keys": [*record["keys"], key]}
            if await self._write(number, body, tip, at):
                return changed
        raise ForgeError(f"PR #{number} is being changed by too many at once; retry")

    async def _read(self, number: int) -> tuple[dict[str, Any], str]:
        tip = ""
        if (self._repository / "HEAD").exists():
            _, out = await git.run_bytes(
                "rev-parse", "--verify", "-q", f"{PULLS}/{number}", cwd=self._repository, ok_codes=(0, 1)
            )
            tip = out.decode().strip()
        if not tip:
            raise PullRequestNotFound(f"there is no pull request #{number}")
        return json.loads(await git.run("cat-file", "blob", f"{tip}:pull.json", cwd=self._repository)), tip

    async def _write(self, number: int, record: dict[str, Any], before: str | None, at: datetime) -> bool:
        """Write the record's next state if its last one is still `before`. False when another writer was faster."""
        text = json.dumps(record, ensure_ascii=False, indent=1).encode()
        _, blob = await git.run_bytes("hash-object", "-w", "--stdin", cwd=self._repository, stdin=text)
        entry = f"100644 blob {blob.decode().strip()}\tpull.json\n"
        tree = await git.run("mktree", cwd=self._repository, stdin=entry.encode())
        parents = [before] if before else []
        commit = await git.commit_tree(self._repository, tree, parents, f"PR #{number}\n", "CodeSpar", at)
        code, _ = await git.run_bytes(
            "update-ref",
            f"{PULLS}/{number}",
            commit,
            before or "",
            cwd=self._repository,
            ok_codes=(0, 1, 128),
        )
        return code == 0
