"""An order's folder on this host: what a container is given, and what it left there.

What it left is data of unknown origin: it must never be followed through a link, and never be read beyond a cap.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from codespar.sandbox.base import Order, OutputRefused, SandboxError

ENTRIES = 10_000  # files a container may leave in its output before that alone ends it
RESULT_BYTES = 4 * 1024**2


def lay_out(order: Order, uid: int, gid: int) -> None:
    """Make the order's folder: in/ with what the runner reads, out/ writable for the container's user alone. Raises `SandboxError`."""
    within, out = order.folder / "in", order.folder / "out"
    within.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    if out.is_symlink() or within.is_symlink():
        raise SandboxError(
            f"{order.folder} holds links where its folders should be: nothing is mounted from it. Remove it, then retry."
        )
    within.chmod(0o755)
    out.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(out, uid, gid)
        _readable(order.repository, uid)
    _put(within / "task.json", order.spec.model_dump_json(by_alias=True).encode())
    _put(within / "order.json", json.dumps({"job": order.job.value, "protocol": 1}).encode())
    if order.patch is not None:
        _put(within / "earlier.patch", regular(order.patch, order.spec.limits.output_bytes))
    gateway = within / "model.sock"
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(gateway.lstat().st_mode):
            gateway.chmod(0o666)  # connecting needs write permission; the folders above keep others out


def _readable(repository: Path, uid: int) -> None:
    for path in (repository, repository / "objects"):
        status = path.stat()
        if status.st_uid != uid and status.st_mode & 0o005 != 0o005:
            raise SandboxError(
                f"{path} cannot be read by the user of task containers (uid {uid}): `chmod -R o+rX {repository}`, or run CodeSpar as another"
                " user than root."
            )


def _put(path: Path, content: bytes) -> None:
    """Write, unless it is there already: a running container reads whole files only."""
    if path.is_file() and path.read_bytes() == content:
        return
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    unfinished.write_bytes(content)
    unfinished.chmod(0o644)
    unfinished.replace(path)


def regular(path: Path, cap: int) -> bytes:
    """A file another container wrote: no link, no device, no more than `cap` bytes. Raises `OutputRefused`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OutputRefused(
            f"{path} is a link or cannot be opened ({error.strerror}): it is not used"
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # asked first: a folder can be opened, but not as a file
        os.close(handle)
        raise OutputRefused(f"{path} is not a regular file: it is not used")
    with os.fdopen(handle, "rb") as file:
        content = file.read(cap + 1)
    if len(content) > cap:
        raise OutputRefused(
            f"{path} is larger than the {cap} bytes that may come out of a task (`limits.output`)"
        )
    return content


def says_disk_full(path: Path) -> bool:
    try:
        result = json.loads(regular(path, RESULT_BYTES))
    except (OutputRefused, ValueError, RecursionError):  # the reader of the result says what is wrong with it
        return False
    return isinstance(result, dict) and result.get("filesystemFull") is True


def write_result(path: Path, why: str) -> None:
    """Our word in place of the runner's, after we killed it. The container has ended: nobody else writes here now."""
    result = {
        "protocol": 1,
        "outcome": "error",
        "error": why,
        "summary": "",
        "turns": 0,
        "filesystemFull": False,
    }
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "w") as file:
        json.dump(result, file)


def size_of(folder: Path) -> tuple[int, int]:
    """Bytes and entries under a folder; links are not followed, and counting stops where it is too much anyway. A folder that cannot be
    looked into counts as too many entries: anything could be in it."""
    size = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= ENTRIES:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > ENTRIES:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        with suppress(FileNotFoundError):  # gone since: the others still count
                            size += entry.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            return size, ENTRIES + 1
    return size, entries
