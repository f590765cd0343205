"""Task containers on a Docker Engine: no network, read-only root, no capabilities, capped in everything, found again by name.

It must never start a container with less isolation than is written here, never mount anything but the order's own folder and its
repository, and never follow a link that a container left in its output.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
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
    ReadFile,
    SandboxError,
    Say,
)
from codespar.sandbox.dockerengine import EngineClient, no_engine
from codespar.sandbox.folder import ENTRIES, lay_out, says_disk_full, size_of, write_result
from codespar.sandbox.images import EnvironmentImages, TaskAgentImage

if TYPE_CHECKING:
    from aiodocker import Docker, DockerError
    from aiodocker.containers import DockerContainer

CONTAINER_UID = 10001  # the image's user, used when this process is root
OUTPUT_EVERY = 0.5  # seconds between looks at how much came out
ENGINE_PATIENCE = 120.0  # seconds a restarting engine is waited for
INSTALLATION_LABEL = "codespar.installation"
TASK_LABEL = "codespar.task"


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
        self.image = image or TaskAgentImage(
            self._engine, data_dir, base_image=base_image, ca_bundle=ca_bundle
        )
        self._images = EnvironmentImages(self.image)
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

    async def has(self, name: str) -> bool:
        """Whether this installation has a container of that name, running or ended."""
        return await self._ours(name) is not None

    async def remove(self, name: str) -> None:
        """End and remove this installation's container of that name. No error when there is none."""
        container = await self._ours(name)
        if container is not None:
            await self._drop(container)

    async def _ours(self, name: str) -> DockerContainer | None:
        docker = await self._engine.get()
        from aiodocker import DockerError

        try:
            found = await docker.containers.get(name)
            shown = await found.show()
        except DockerError as error:
            if error.status == 404:  # also when somebody removes it between the two
                return None
            raise no_engine("its address", error) from error
        labels: dict[str, str] = shown["Config"].get("Labels") or {}
        return found if labels.get(INSTALLATION_LABEL) == self._installation else None

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
            await asyncio.to_thread(write_result, self._out / "result.json", excess)
        else:
            full = await asyncio.to_thread(says_disk_full, self._out / "result.json")
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
        from aiohttp import ClientError

        while True:
            excess = await asyncio.to_thread(self._too_much)
            if excess is not None:
                break
            await asyncio.sleep(OUTPUT_EVERY)
        self._excess = excess  # before the kill, which ends the waiting for the container and for this
        self._stopped = True
        while True:
            try:
                await self._container.kill(signal="SIGKILL")
                return
            except (DockerError, ClientError) as error:
                if isinstance(error, DockerError) and error.status in (404, 409):
                    return  # it ended by itself in the meantime
            await asyncio.sleep(OUTPUT_EVERY)  # the engine restarts: the container may write on

    def _too_much(self) -> str | None:
        """What is wrong with the amount of output there is now."""
        size, entries = size_of(self._out)
        if size <= self._limits.output_bytes * 2 and entries <= ENTRIES:
            return None
        what = f"{size} bytes" if entries <= ENTRIES else f"more than {ENTRIES} files"
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


def _time(text: str) -> datetime:
    """The engine's time: RFC 3339 with up to nine digits of a second."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")
