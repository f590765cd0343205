"""The image our own analysers run in: the task container's tools, the programs, our rules and the runner.

Like the other images it is found by the hash of everything it was made from. It is built when the first review needs it, not before.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from codespar import __version__
from codespar.sandbox.base import ImageMissing, Say
from codespar.sandbox.dockerengine import BuildFailed, build, digest, find
from codespar.sandbox.images import SOURCES, TaskAgentImage

RULES = Path(__file__).parent / "rules"
# The detectors of our screening go into the image as they are: what a review calls a secret and what is kept from leaving are then the same.
DETECTORS = Path(__file__).parent.parent / "screening" / "secrets.py"


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
        async with self._lock:
            if self._known is None:
                self._known = await self._ensure(say)
        return self._known

    async def _ensure(self, say: Say) -> str:
        docker = await self._agent.engine.get()
        began = time.monotonic()
        wanted = await asyncio.to_thread(_read, SOURCES, "analysis-tools.Dockerfile", "analysers.txt")
        tools = digest((await self._agent.tools_inputs())[1].encode(), *wanted.values())
        ours = await asyncio.to_thread(_read, SOURCES, "analysers.Dockerfile", "analyse.py", "runner.py")
        rules = await asyncio.to_thread(_read, RULES, *sorted(path.name for path in RULES.glob("*.yaml")))
        detectors = DETECTORS.read_bytes()
        named = [part for name, content in sorted(rules.items()) for part in (name.encode(), content)]
        inputs = digest(tools.encode(), *ours.values(), detectors, *named)
        name, tools_name = (
            f"codespar/analysers:{__version__}-{inputs[:12]}",
            f"codespar/analysis-tools:{tools[:12]}",
        )
        found = await find(docker, name, inputs)
        if found is not None:
            return found
        try:
            if await find(docker, tools_name, tools) is None:
                say("building the analysers' image: this takes a minute or two, once")
                context: dict[str, bytes | Path] = {
                    "Dockerfile": wanted["analysis-tools.Dockerfile"],
                    "analysers.txt": wanted["analysers.txt"],
                }
                await build(
                    docker, tools_name, tools, context, {"TOOLS": await self._agent.tools(say), **_index()}
                )
            files: dict[str, bytes | Path] = {
                "Dockerfile": ours["analysers.Dockerfile"],
                "analyse.py": ours["analyse.py"],
                "runner.py": ours["runner.py"],
                "secretkinds.py": detectors,
            }
            files |= {f"rules/{rule}": content for rule, content in rules.items()}
            await build(docker, name, inputs, files, {"TOOLS": tools_name})
        except BuildFailed as error:
            raise ImageMissing(
                f"The analysers' image {name} could not be built: {error}\nSee `codespar doctor`."
            ) from error
        found = await find(docker, name, inputs)
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
