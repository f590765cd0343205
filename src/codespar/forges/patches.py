"""A patch as a tree, made in a throw-away index: no work tree, so no hooks, filters or links are ever in force.

What comes out of a task was written by a model, so a change may not bring what would act on whoever checks it out: a submodule, an entry of an
unknown kind, a path into `.git` or out of the repository, or a link that leads out of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from codespar import git
from codespar.forges.base import PatchRefused

_MODES = {"100644", "100755", "120000", "000000"}  # of files, links, and what is taken away
_LINK = "120000"
_ABSENT = "000000"


async def apply_patch(repository: Path, base_commit: str, patch: bytes, scratch: Path) -> str:
    """The id of the tree that is `base_commit`'s with the patch applied. The index is kept in a folder of its own in `scratch` meanwhile.

    Raises `PatchRefused` for one that does not apply, changes nothing, or brings what no change may bring."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=scratch) as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        await git.run("read-tree", base_commit, cwd=repository, extra_env=env)
        apply = ("apply", "--cached", "--binary", "--whitespace=nowarn", "-")
        try:
            await git.run(*apply, cwd=repository, stdin=patch, extra_env=env)
        except git.GitError as error:
            raise PatchRefused(f"it does not apply to {base_commit[:12]}: {error.said}") from error
        tree = await git.run("write-tree", cwd=repository, extra_env=env)
    await _refuse_tricks(repository, base_commit, tree)
    return tree


async def _refuse_tricks(repository: Path, base: str, tree: str) -> None:
    _, raw = await git.run_bytes("diff-tree", "-r", "-z", "--no-renames", base, tree, cwd=repository)
    parts = raw.split(b"\0")
    if len(parts) < 2:
        raise PatchRefused("it changes nothing")
    for head, name in zip(parts[0::2], parts[1::2], strict=False):
        _old, mode, _from, blob, _status = head.decode().lstrip(":").split()
        path = name.decode(errors="surrogateescape")
        if mode not in _MODES:
            raise PatchRefused(f"{path} would become a submodule or an unknown kind of entry ({mode})")
        pieces = path.split("/")
        if path.startswith("/") or any(piece.lower() in (".git", "..", ".", "") for piece in pieces):
            raise PatchRefused(f"{path} is not a path a change may have")
        if path == ".gitmodules" and mode != _ABSENT:
            raise PatchRefused("it changes .gitmodules: submodules are added by people")
        if mode == _LINK:
            _, content = await git.run_bytes("cat-file", "blob", blob, cwd=repository)
            target = content.decode(errors="replace")
            if _leaves_tree(pieces[:-1], target):
                raise PatchRefused(f"{path} would be a link out of the repository ({target[:100]})")


def _leaves_tree(folder: Sequence[str], target: str) -> bool:
    """Whether a link in that folder of the repository leads out of it, be it only on its way."""
    ways = [piece for piece in target.split("/") if piece not in ("", ".")]
    down = next((place for place, piece in enumerate(ways) if piece != ".."), len(ways))
    # What is named on the way down may be a link itself, and going up from there leads who knows where.
    return target.startswith("/") or down > len(folder) or ".." in ways[down:]
