"""The container engine, as far as images and containers both need it: one connection, finding and building images by their inputs.

It knows nothing of tasks. It must never answer for an engine that does not: what is not certain is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from codespar.sandbox.base import EngineUnavailable, ImageMissing, SandboxError

if TYPE_CHECKING:
    from aiodocker import Docker

INPUTS_LABEL = "codespar.inputs"
LOST = re.compile(
    r"no such image|failed to get (digest|layer)|unknown parent|layer does not exist", re.IGNORECASE
)
"""What the engine says when an image goes away while it is looked at."""
_TAIL = 2500  # characters of a failed build that people are shown


class EngineClient:
    """One connection to the container engine, made when it is first needed (the client library costs 0.3 s to import)."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url
        self._docker: Docker | None = None

    async def get(self) -> Docker:
        """The client. Raises `EngineUnavailable`."""
        if self._docker is not None:
            return self._docker
        from aiodocker import Docker, DockerError
        from aiohttp import UnixConnector

        where = self.url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        path = where.removeprefix("unix://")
        # Every running container holds a connection while it is waited for: no limit, or the 101st would block all.
        connector = UnixConnector(path, limit=0) if path != where else None
        docker = Docker(url=where, connector=connector)
        if connector is not None:
            docker.docker_host = "unix://localhost"  # as the client itself does for a connector of its own
        try:
            async with asyncio.timeout(10):
                await docker.version()
        except (DockerError, TimeoutError, OSError) as error:
            await _close(docker)
            raise no_engine(where, error) from error
        except asyncio.CancelledError:
            await _close(docker)
            raise
        if self._docker is not None:  # another caller was faster
            await _close(docker)
        else:
            self._docker = docker
        return self._docker

    async def close(self) -> None:
        if self._docker is not None:
            docker, self._docker = self._docker, None
            await _close(docker)


async def _close(docker: Docker) -> None:
    connector = docker.connector
    await docker.close()
    await connector.close()


def no_engine(where: str, error: BaseException) -> EngineUnavailable:
    root = error
    while within := root.__cause__ or root.__context__:  # the libraries wrap what the system said
        root = within
    number = root.errno if isinstance(root, OSError) else None
    why = os.strerror(number) if number else str(error) or "it did not answer in time"
    return EngineUnavailable(
        f"No Docker Engine answers at {where} ({why}). Install it with `apt-get install docker.io`, start it with"
        " `systemctl start docker`, add yourself to the group `docker`, or see `codespar doctor`."
    )


def digest(*parts: bytes) -> str:
    """SHA-256 over the parts, each with its length."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


async def find(docker: Docker, name: str, inputs: str | None = None) -> str | None:
    """The id of the image `name`, or None when there is none (or one made from other inputs)."""
    from aiodocker import DockerError

    try:
        image = await docker.images.inspect(name)
    except DockerError as error:
        if error.status == 404 or LOST.match(error.message):
            return None
        if error.status == 900:
            raise no_engine("its address", error) from error
        raise ImageMissing(f"the engine does not say whether it has {name}: {error}") from error
    labels: dict[str, str] = (image.get("Config") or {}).get("Labels") or {}
    return str(image["Id"]) if inputs is None or labels.get(INPUTS_LABEL) == inputs else None


class BuildFailed(SandboxError):
    """The engine could not build; the text is the end of what the build said."""


async def build(
    docker: Docker,
    name: str,
    inputs: str,
    context: Mapping[str, bytes | Path],
    arguments: dict[str, str],
    dockerfile: str = "Dockerfile",
) -> None:
    """Build `name` from files in memory and on disk. Raises `BuildFailed`."""
    async with _apart(docker) as own:
        try:
            await _build(own, name, inputs, context, arguments, dockerfile)
        except BuildFailed as error:
            if not LOST.match(str(error)):
                raise
            # a step it had from the engine's cache was removed as it went on: the step is made anew
            await _build(own, name, inputs, context, arguments, dockerfile)


@asynccontextmanager
async def _apart(docker: Docker) -> AsyncGenerator[Docker]:
    """A connection for one build, closed with it. The client library leaves an answer that nobody waits for any more to the garbage
    collector, and until then the engine builds on."""
    from aiodocker import Docker
    from aiohttp import UnixConnector

    if not isinstance(docker.connector, UnixConnector):
        yield docker
        return
    own = Docker(url="unix://localhost", connector=UnixConnector(docker.connector.path))
    own.docker_host = docker.docker_host
    try:
        yield own
    finally:
        await _close(own)


async def _build(
    docker: Docker,
    name: str,
    inputs: str,
    context: Mapping[str, bytes | Path],
    arguments: dict[str, str],
    dockerfile: str,
) -> None:
    from aiodocker import DockerError

    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        await asyncio.to_thread(_pack, file, context)
        try:
            stream = docker.images.build(
                fileobj=file,
                encoding="identity",
                path_dockerfile=dockerfile,
                tag=name,
                buildargs=arguments,
                labels={INPUTS_LABEL: inputs},
                forcerm=True,
                stream=True,
            )
            async for event in stream:
                said.append(str(event.get("stream") or event.get("error") or ""))
        except DockerError as error:
            text = "".join(said)[-_TAIL:].strip()
            raise BuildFailed(f"{error.message}\n{text}") from error


def _pack(file: IO[bytes], context: Mapping[str, bytes | Path]) -> None:
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name, content in context.items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755 if isinstance(content, Path) else 0o644
            if isinstance(content, Path):
                entry.size = content.stat().st_size
                with content.open("rb") as source:
                    packed.addfile(entry, source)
            else:
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    file.seek(0)
