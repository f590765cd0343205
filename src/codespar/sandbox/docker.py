"""Task containers on a Docker Engine: no network, read-only root, no capabilities, capped in everything, found again by name.

It must never start a container with less isolation than is written here, never mount anything but the order's own folder and its
repository, and never follow a link that a container left in its output.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from codespar.domain.tasks import Limits
from codespar.sandbox.base import (
    Container,
    Ended,
    EnvironmentSetup,
    ImageMissing,
    Order,
    OutputRefused,
    ReadFile,
    SandboxError,
    Say,
)
from codespar.sandbox.dockerengine import EngineClient, no_engine
from codespar.sandbox.images import EnvironmentImages, TaskAgentImage

if TYPE_CHECKING:
    from aiodocker import Docker, DockerError
    from aiodocker.containers import DockerContainer

CONTAINER_UID = 10001  # the image's user, used when this process is root
OUTPUT_EVERY = 0.5  # seconds between looks at how much came out
ENGINE_PATIENCE = 120.0  # seconds a restarting engine is waited for
INSTALLATION_LABEL = "codespar.installation"
TASK_LABEL = "codespar.task"
_RESULT_BYTES = 4 * 1024**2
_ENTRIES = 10_000  # files a container may leave in its output before that alone ends it


class DockerSandbox:
    """`Sandbox` on the Docker Engine at `url` (default: `DOCKER_HOST`, then the local socket)."""

    def __init__(
        self,
        url: str | None,
        data_dir: Path,
        installation: str,
        image: TaskAgentImage | None = None,
        *,
        base_image: str | None = None,
        ca_bundle: Path | None = None,
    ) -> None:
        """`installation` tells this installation's containers from another's on the same engine."""
        self._engine = image.engine if image else EngineClient(url)
        self._images = EnvironmentImages(
            image or TaskAgentImage(self._engine, data_dir, base_image=base_image, ca_bundle=ca_bundle)
        )
        self._installation = installation

    async def check(self) -> None:
        """Raise `EngineUnavailable` with what to do when no engine answers."""
        docker = await self._engine.get()
        from aiodocker import DockerError

        try:
            await docker.version()
        except (DockerError, OSError, TimeoutError) as error:
            raise no_engine("its address", error) from error

    async def close(self) -> None:
        """Close the connection to the engine. Containers run on."""
        await self._engine.close()

    async def ensure_image(
        self, *, project: str, base_commit: str, setup: EnvironmentSetup, read_file: ReadFile, say: Say
    ) -> str:
        """The image for this environment, built if its inputs are new. Raises `ImageMissing`, `EnvironmentBroken`."""
        return await self._images.ensure(base_commit, setup, read_file, say)

    async def start(self, order: Order) -> Container:
        """Start the order's container, or adopt the one that runs under its name, or return the one that ended under it."""
        docker = await self._engine.get()
        from aiodocker import DockerError

        uid, gid = (CONTAINER_UID, CONTAINER_UID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        await asyncio.to_thread(lay_out, order, uid, gid)
        settings = configuration(
            order, f"{uid}:{gid}", {INSTALLATION_LABEL: self._installation, TASK_LABEL: order.spec.id}
        )
        adopted = False
        try:
            container = await docker.containers.create(settings, name=order.name)
        except DockerError as error:
            if error.status != 409:
                raise self._refused(error, order) from error
            container, adopted = await self._adopt(docker, order)
        if not adopted:
            try:
                await container.start()
            except DockerError as error:
                await self._drop(container)
                raise self._refused(error, order) from error
        return DockerTask(docker, container, order, adopted)

    async def sweep(self, keep: set[str]) -> list[str]:
        """Remove every container of this installation whose name is not in `keep`. Returns the removed names."""
        docker = await self._engine.get()
        from aiodocker import DockerError

        filters = json.dumps({"label": [f"{INSTALLATION_LABEL}={self._installation}"]})
        try:
            found = await docker.containers.list(all=True, filters=filters)
        except DockerError as error:
            raise no_engine("its address", error) from error
        names = {str(item["Names"][0]).lstrip("/"): item for item in found}
        removed = sorted(set(names) - keep)
        for name in removed:
            await self._drop(names[name])
        return removed

    async def _adopt(self, docker: Docker, order: Order) -> tuple[DockerContainer, bool]:
        """The container that has the order's name, and whether it was started before. Refuses one that is not ours."""
        from aiodocker import DockerError

        try:
            container = await docker.containers.get(order.name)
            shown = await container.show()
        except DockerError as error:
            raise self._refused(error, order) from error
        labels: dict[str, str] = shown["Config"].get("Labels") or {}
        if labels.get(INSTALLATION_LABEL) != self._installation or labels.get(TASK_LABEL) != order.spec.id:
            raise SandboxError(
                f"A container named {order.name} exists that is not this installation's: remove it with `docker rm -f {order.name}`, then retry."
            )
        return container, shown["State"]["Status"] != "created"

    async def _drop(self, container: DockerContainer) -> None:
        from aiodocker import DockerError

        try:
            await container.delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):  # gone, or being removed already
                raise SandboxError(f"container {container.id[:12]} could not be removed: {error}") from error

    def _refused(self, error: DockerError, order: Order) -> SandboxError:
        image = order.spec.environment.image
        if error.status == 900:
            return no_engine("its address", error)
        if error.status == 404 and "image" in error.message.lower():
            self._images.forget(image)
            return ImageMissing(
                f"The image {image} of {order.spec.id} is no longer on this host. Retry the task: it is then built again."
            )
        return SandboxError(
            f"The container {order.name} could not be started: {error.message}. See `codespar doctor`."
        )


def configuration(order: Order, user: str, labels: dict[str, str]) -> dict[str, Any]:
    """What the engine is asked for. Every line of the isolation is here."""
    limits = order.spec.limits
    folder = order.folder.resolve()
    mounts = [
        {"Type": "bind", "Source": str(order.repository.resolve()), "Target": "/workspace", "ReadOnly": True},
        {"Type": "bind", "Source": str(folder / "out"), "Target": "/output", "ReadOnly": False},
        {"Type": "bind", "Source": str(folder / "in"), "Target": "/run/codespar", "ReadOnly": True},
    ]
    largest = max(limits.tmp_bytes, limits.output_bytes)  # of a single file, wherever it is
    return {
        "Image": order.spec.environment.image,
        "Cmd": ["--task-spec=task.json"],
        "User": user,
        "WorkingDir": "/tmp",
        "Labels": labels,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,  # the same: no swap on top
            "NanoCpus": int(limits.cpus * 1e9),
            "PidsLimit": limits.pids,
            "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,size={limits.tmp_bytes},mode=1777"},
            "Mounts": mounts,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Ulimits": [
                {"Name": "nofile", "Soft": 4096, "Hard": 4096},
                {"Name": "fsize", "Soft": largest, "Hard": largest},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "OomScoreAdj": 100,  # where the whole host runs short, tasks go before servers
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        },
    }


class DockerTask:
    """`Container`: one task's container on the engine."""

    def __init__(self, docker: Docker, container: DockerContainer, order: Order, adopted: bool) -> None:
        self.name = order.name
        self.adopted = adopted
        self._docker = docker
        self._container = container
        self._out = order.folder / "out"
        self._limits: Limits = order.spec.limits
        self._stopped = False
        self._excess: str | None = None  # why its output ended it

    async def isolation(self) -> dict[str, JsonValue]:
        """What the engine says of the live container."""
        shown = await self._show()
        host, config = shown["HostConfig"], shown["Config"]
        return {
            "network": host["NetworkMode"],
            "networks": sorted(shown["NetworkSettings"].get("Networks") or {}),
            "memory": host["Memory"],
            "memorySwap": host["MemorySwap"],
            "cpus": host["NanoCpus"] / 1e9,
            "readOnlyRootfs": host["ReadonlyRootfs"],
            "privileged": host["Privileged"],
            "capDrop": host["CapDrop"] or [],
            "capAdd": host["CapAdd"] or [],
            "securityOpt": host["SecurityOpt"] or [],
            "pidsLimit": host["PidsLimit"],
            "user": config["User"],
            "tmpfs": host["Tmpfs"] or {},
            "mounts": [
                {"target": mount["Destination"], "source": mount["Source"], "readOnly": not mount["RW"]}
                for mount in sorted(shown["Mounts"], key=lambda mount: str(mount["Destination"]))
            ],
            "ulimits": {limit["Name"]: limit["Hard"] for limit in host["Ulimits"] or []},
            "image": shown["Image"],
        }

    async def wait(self) -> Ended:
        """Wait until it has ended. Survives a restart of the engine; kills it when it writes too much to its output."""
        watcher = asyncio.create_task(self._watch_output())
        try:
            await self._until_ended()
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        excess = self._excess or await asyncio.to_thread(self._too_much)
        shown = await self._show()
        state = shown["State"]
        code = int(state["ExitCode"])
        tail = await self._log_tail()
        full = False
        if excess:
            tail = f"{tail}\n{excess}".strip()
            await asyncio.to_thread(_write_result, self._out / "result.json", excess)
        else:
            full = await asyncio.to_thread(_says_disk_full, self._out / "result.json")
        return Ended(
            exit_code=code,
            # The engine's flag is set for any process that was killed; only an exit by SIGKILL means that it ended the job.
            out_of_memory=bool(state["OOMKilled"]) and code == 137 and not self._stopped,
            disk_full=full,
            stopped_by_us=self._stopped,
            seconds=max(0.0, (_time(state["FinishedAt"]) - _time(state["StartedAt"])).total_seconds()),
            log_tail=tail,
        )

    async def stop(self, grace_seconds: float = 10) -> None:
        """SIGTERM, `grace_seconds`, SIGKILL. No error when it has ended already."""
        from aiodocker import DockerError

        self._stopped = True
        try:
            await self._container.stop(t=math.ceil(grace_seconds))
        except DockerError as error:
            if error.status not in (304, 404):
                raise self._trouble(error, "stopped") from error

    async def remove(self) -> None:
        """Remove it and what it left in the engine. No error when it is gone."""
        from aiodocker import DockerError

        try:
            await self._container.delete(force=True, v=True)
        except DockerError as error:
            if error.status not in (404, 409):
                raise self._trouble(error, "removed") from error

    async def _show(self) -> dict[str, Any]:
        from aiodocker import DockerError

        try:
            return await self._container.show()
        except DockerError as error:
            raise self._trouble(error, "looked at") from error

    async def _until_ended(self) -> None:
        from aiodocker import DockerError
        from aiohttp import ClientError

        loop = asyncio.get_running_loop()
        gone_since: float | None = None
        while True:
            try:
                await self._container.wait()
                return
            except (DockerError, ClientError, ValueError) as error:
                if isinstance(error, DockerError) and error.status not in (900, 500, 503):
                    raise self._trouble(error, "waited for") from error
                now = loop.time()
                gone_since = now if gone_since is None else gone_since
                if now - gone_since > ENGINE_PATIENCE:
                    raise no_engine("its address", error) from error
            await asyncio.sleep(1)

    async def _watch_output(self) -> None:
        """Kill the container when its output grows beyond what may ever be taken."""
        from aiodocker import DockerError

        while True:
            excess = await asyncio.to_thread(self._too_much)
            if excess is not None:
                break
            await asyncio.sleep(OUTPUT_EVERY)
        self._excess = excess  # before the kill, which ends the waiting for the container and for this
        self._stopped = True
        with suppress(DockerError):  # ended by itself in the meantime
            await self._container.kill(signal="SIGKILL")

    def _too_much(self) -> str | None:
        """What is wrong with the amount of output there is now."""
        size, entries = _size(self._out)
        if size <= self._limits.output_bytes * 2 and entries <= _ENTRIES:
            return None
        what = f"{size} bytes" if entries <= _ENTRIES else f"more than {_ENTRIES} files"
        return f"the task wrote {what} to its output and was ended (`limits.output` is {self._limits.output_bytes})"

    async def _log_tail(self) -> str:
        from aiodocker import DockerError

        try:
            lines = await self._container.log(stdout=True, stderr=True, tail=50)
        except DockerError as error:
            return f"(the container's log could not be read: {error})"
        return "".join(lines)[-8000:]

    def _trouble(self, error: DockerError, what: str) -> SandboxError:
        if error.status == 900:
            return no_engine("its address", error)
        if error.status == 404:
            return SandboxError(
                f"The container {self.name} is gone: it was removed by another program. Retry the task."
            )
        return SandboxError(f"The container {self.name} could not be {what}: {error.message}")


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
        _put(within / "earlier.patch", _regular(order.patch, order.spec.limits.output_bytes))
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
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.chmod(0o644)
    unfinished.replace(path)


def _regular(path: Path, cap: int) -> bytes:
    """A file another container wrote: no link, no device, no more than `cap` bytes. Raises `OutputRefused`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise OutputRefused(
            f"{path} is a link or cannot be opened ({error.strerror}): it is not used"
        ) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OutputRefused(f"{path} is not a regular file: it is not used")
        content = file.read(cap + 1)
    if len(content) > cap:
        raise OutputRefused(
            f"{path} is larger than the {cap} bytes that may come out of a task (`limits.output`)"
        )
    return content


def _says_disk_full(path: Path) -> bool:
    try:
        result = json.loads(_regular(path, _RESULT_BYTES))
    except (OutputRefused, ValueError):  # the reader of the result says what is wrong with it
        return False
    return isinstance(result, dict) and result.get("filesystemFull") is True


def _write_result(path: Path, why: str) -> None:
    """Our word in place of the runner's, after we killed it. The container has ended: nobody else writes here now."""
    result = {
        "protocol": 1,
        "outcome": "error",
        "error": why,
        "summary": "",
        "turns": 0,
        "filesystemFull": False,
    }
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "w") as file:
        json.dump(result, file)


def _size(folder: Path) -> tuple[int, int]:
    """Bytes and entries under a folder; links are not followed, and counting stops where it is too much anyway."""
    size = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= _ENTRIES:
        with suppress(FileNotFoundError, PermissionError), os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entries > _ENTRIES:
                    break
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return size, entries


def _time(text: str) -> datetime:
    """The engine's time: RFC 3339 with up to nine digits of a second."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")
