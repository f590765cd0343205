"""The image our own analysers run in: the task container's tools, the programs, our rules and the runner.

Like the other images it is found by the hash of everything it was made from. It is built when the first review needs it, not before.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from codespar import __version__
from codespar.sandbox.base import ImageMissing, Say
from codespar.sandbox.dockerengine import BuildFailed, build, digest
from codespar.sandbox.images import SOURCES, TaskAgentImage
from codespar.sandbox.imageuse import mark, take

if TYPE_CHECKING:
    from aiodocker import Docker

RULES = Path(__file__).parent / "rules"
# The detectors of our screening go into the image as they are: what a review calls a secret and what is kept from leaving are then the same.
DETECTORS = Path(__file__).parent.parent / "screening" / "secrets.py"


@dataclass(frozen=True)
class _Inputs:
    """What the two images are made from, and their names."""

    name: str
    inputs: str
    files: Mapping[str, bytes | Path]
    tools_name: str
    tools: str
    tools_files: Mapping[str, bytes | Path]


class AnalysersImage:
    """`codespar/analysers`."""

    def __init__(self, agent: TaskAgentImage) -> None:
        self._agent = agent
        self._known: str | None = None
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """The engine no longer has it: look again."""
        self._known = None

    async def ensure(self, say: Say) -> str:
        """The image's id, built when its inputs are new. Raises `ImageMissing`, `EngineUnavailable`."""
        docker = await self._agent.engine.get()
        async with self._lock:
            if self._known is None or not await mark(docker, self._known):
                self._known = await self._ensure(docker, say)
            return self._known

    async def names(self) -> tuple[str, ...]:
        """The names of the images that this release makes and uses, whether they are there or not."""
        made = await self._inputs()
        return made.tools_name, made.name

    async def _inputs(self) -> _Inputs:
        wanted = await asyncio.to_thread(_read, SOURCES, "analysis-tools.Dockerfile", "analysers.txt")
        tools = digest((await self._agent.tools_inputs())[1].encode(), *wanted.values())
        ours = await asyncio.to_thread(_read, SOURCES, "analysers.Dockerfile", "analyse.py", "runner.py")
        rules = await asyncio.to_thread(_read, RULES, *sorted(path.name for path in RULES.glob("*.yaml")))
        detectors = DETECTORS.read_bytes()
        named = [part for name, content in sorted(rules.items()) for part in (name.encode(), content)]
        inputs = digest(tools.encode(), *ours.values(), detectors, *named)
        files: dict[str, bytes | Path] = {
            "Dockerfile": ours["analysers.Dockerfile"],
            "analyse.py": ours["analyse.py"],
            "runner.py": ours["runner.py"],
            "secretkinds.py": detectors,
        }
        files |= {f"rules/{rule}": content for rule, content in rules.items()}
        return _Inputs(
            name=f"codespar/analysers:{__version__}-{inputs[:12]}",
            inputs=inputs,
            files=files,
            tools_name=f"codespar/analysis-tools:{tools[:12]}",
            tools=tools,
            tools_files={
                "Dockerfile": wanted["analysis-tools.Dockerfile"],
                "analysers.txt": wanted["analysers.txt"],
            },
        )

    async def _ensure(self, docker: Docker, say: Say) -> str:
        began = time.monotonic()
        made = await self._inputs()
        name = made.name
        found = await take(docker, name, made.inputs)
        if found is not None:
            return found
        try:
            if await take(docker, made.tools_name, made.tools) is None:
                say("building the analysers' image: this takes a minute or two, once")
                arguments = {"TOOLS": await self._agent.tools(say), **_index()}
                await build(docker, made.tools_name, made.tools, made.tools_files, arguments)
            await build(docker, name, made.inputs, made.files, {"TOOLS": made.tools_name})
        except BuildFailed as error:
            raise ImageMissing(
                f"The analysers' image {name} could not be built: {error}\nSee `codespar doctor`."
            ) from error
        found = await take(docker, name, made.inputs)
        if found is None:
            raise ImageMissing(
                f"{name} was built, but the engine does not have it: another program may be removing images"
            )
        say(f"built {name} in {time.monotonic() - began:.0f} s")
        return found


def _read(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def _index() -> dict[str, str]:
    """This host's package index for the build, unless its address holds a credential: that would stay in the image."""
    address = os.environ.get("PIP_INDEX_URL", "")
    return {"PIP_INDEX_URL": address} if address and "@" not in urlsplit(address).netloc else {}
