"""The images tasks run in: ours with the coding CLI and the runner, and one on top of it for each environment of a project.

An image is found by the hash of everything it was made from, so nothing is built twice and nothing stale is used. Builds have
network; what they make runs without. It must never put a credential of this host into an image.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from codespar import __version__
from codespar.sandbox.base import (
    EnvironmentBroken,
    EnvironmentSetup,
    ImageMissing,
    ReadFile,
    Say,
)
from codespar.sandbox.dockerengine import INPUTS_LABEL, BuildFailed, EngineClient, build, digest, find
from codespar.sandbox.imageuse import mark, take

if TYPE_CHECKING:
    from aiodocker import Docker

CLAUDE_CODE_VERSION = "2.1.329"
CLAUDE_AGENT_SDK_VERSION = "0.2.186"  # the PyPI package that carries the same binary
CLAUDE_SHA256 = {
    "x64": "30e2724e2aecb1bf5dc9f3130901afb71c5fa229051c190a6d7ad9aff6378d6d",
    "arm64": "8489e2c7ba7846b4681b84e559fed4ed5bb265e129e21dc9de9e322157fb2bea",
}
PUBLIC_BASE = "debian:bookworm-slim"
OWN_BASE = "codespar/base:bookworm"
SOURCES = Path(__file__).parent / "image"
PULL_SECONDS = 30
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_ARCH = "arm64" if platform.machine() in ("aarch64", "arm64") else "x64"
_IMAGE_TAIL = 2500  # characters of a failed build that people are shown


class TaskAgentImage:
    """`codespar/task-agent`: the coding CLI and the runner on a Debian base."""

    def __init__(
        self,
        engine: EngineClient,
        data_dir: Path,
        *,
        base_image: str | None = None,
        ca_bundle: Path | None = None,
    ) -> None:
        """`base_image` replaces the public Debian image; it must be a Debian or Ubuntu. `ca_bundle` is trusted beside the public
        authorities, at build time and in tasks; by default what `SSL_CERT_FILE` names."""
        self.engine = engine
        self._cache = data_dir / "cache"
        self._base_image = base_image
        given = ca_bundle or (Path(os.environ["SSL_CERT_FILE"]) if os.environ.get("SSL_CERT_FILE") else None)
        self.ca_bundle = given if given and given.is_file() else None
        self._known: str | None = None
        self._lock, self._tools_lock = asyncio.Lock(), asyncio.Lock()

    def forget(self) -> None:
        """The engine no longer has it: look again."""
        self._known = None

    async def ensure(self, say: Say) -> str:
        """The image's id, built when its inputs are new. Raises `ImageMissing`, `EngineUnavailable`."""
        docker = await self.engine.get()
        async with self._lock:
            if self._known is None or not await mark(docker, self._known):
                self._known = await self._ensure(docker, say)
            return self._known

    async def tools(self, say: Say) -> str:
        """The name of the image of the tools alone, built when its inputs are new. Raises `ImageMissing`, `EngineUnavailable`."""
        docker = await self.engine.get()
        name, inputs = await self.tools_inputs()
        async with self._tools_lock:
            if await take(docker, name, inputs) is None:
                await self._build_tools(docker, name, inputs, say)
        return name

    async def names(self) -> tuple[str, ...]:
        """The names of the images that this release makes and uses, whether they are there or not."""
        return (await self.tools_inputs())[0], (await self._inputs())[0]

    async def tools_inputs(self) -> tuple[str, str]:
        """The name of the tools' image, and the hash of what it is made from."""
        bundle = await asyncio.to_thread(self.ca_bundle.read_bytes) if self.ca_bundle else b""
        wanted = self._base_image or "debian bookworm"
        recipe = (SOURCES / "tools.Dockerfile").read_bytes()
        inputs = digest(recipe, bundle, CLAUDE_CODE_VERSION.encode(), _ARCH.encode(), wanted.encode())
        return f"codespar/task-agent-tools:{inputs[:12]}", inputs

    async def _inputs(self) -> tuple[str, str, dict[str, bytes | Path]]:
        """The image's name, the hash of what it is made from, and the files of its build."""
        context: dict[str, bytes | Path] = {}
        recipe, runner = (SOURCES / "Dockerfile").read_bytes(), (SOURCES / "runner.py").read_bytes()
        context |= {"Dockerfile": recipe, "runner.py": runner}
        inputs = digest((await self.tools_inputs())[1].encode(), recipe, runner)
        return f"codespar/task-agent:{__version__}-{inputs[:12]}", inputs, context

    async def _ensure(self, docker: Docker, say: Say) -> str:
        name, inputs, context = await self._inputs()
        found = await take(docker, name, inputs)
        if found is None:
            began = time.monotonic()
            await self._build(docker, name, inputs, context, {"TOOLS": await self.tools(say)})
            found = await take(docker, name, inputs)
            say(f"built {name} in {time.monotonic() - began:.0f} s")
        if found is None:
            raise ImageMissing(
                f"{name} was built, but the engine does not have it: another program may be removing images"
            )
        await docker.images.tag(name, "codespar/task-agent", tag=__version__)
        return found

    async def _build_tools(self, docker: Docker, name: str, inputs: str, say: Say) -> None:
        say("building the task image's tools: this takes a minute or two, once")
        bundle = await asyncio.to_thread(self.ca_bundle.read_bytes) if self.ca_bundle else b""
        base = await self._base(docker, say)
        claude = await asyncio.to_thread(self._claude, _ARCH, say)
        context: dict[str, bytes | Path] = {
            "Dockerfile": (SOURCES / "tools.Dockerfile").read_bytes(),
            "host-ca.crt": bundle,
            "apt.conf": b'Acquire::https::CaInfo "/etc/codespar/host-ca.crt";\n' if bundle else b"",
            "certificates/.keep": b"",
            "claude": claude,
        }
        for number, certificate in enumerate(dict.fromkeys(_CERTIFICATE.findall(bundle))):
            context[f"certificates/{number:04}.crt"] = certificate
        await self._build(
            docker, name, inputs, context, {"BASE": base, "CLAUDE_CODE_VERSION": CLAUDE_CODE_VERSION}
        )

    async def _build(
        self,
        docker: Docker,
        name: str,
        inputs: str,
        context: Mapping[str, bytes | Path],
        arguments: dict[str, str],
    ) -> None:
        try:
            await build(docker, name, inputs, context, arguments)
        except BuildFailed as error:
            raise ImageMissing(
                f"The task image {name} could not be built: {error}\nSee `codespar doctor`."
            ) from error

    async def _base(self, docker: Docker, say: Say) -> str:
        """The image ours starts from: pulled, or found, or made with debootstrap."""
        from aiodocker import DockerError

        wanted = self._base_image or PUBLIC_BASE
        for name in (wanted,) if self._base_image else (wanted, OWN_BASE):
            if await find(docker, name) is not None:
                return name
        try:
            async with asyncio.timeout(PULL_SECONDS):
                await docker.images.pull(wanted)
            return wanted
        except (DockerError, TimeoutError) as error:
            why = str(error) or f"no answer in {PULL_SECONDS} s"
        if self._base_image or shutil.which("debootstrap") is None or os.geteuid() != 0:
            raise ImageMissing(
                f"The base image {wanted} is not here and cannot be pulled ({why}). Either `docker pull {wanted}` where a registry can be"
                f" reached, or as root: `apt-get install debootstrap && debootstrap --variant=minbase bookworm /tmp/base && tar -C /tmp/base"
                f" -c . | docker import - {OWN_BASE}`, then try again."
            )
        say(f"{wanted} cannot be pulled; making {OWN_BASE} with debootstrap")
        await self._bootstrap(docker)
        return OWN_BASE

    async def _bootstrap(self, docker: Docker) -> None:
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="codespar-base-"))
        try:
            root, archive = folder / "root", folder / "base.tar"
            for command in (
                ("debootstrap", "--variant=minbase", "bookworm", str(root)),
                (
                    "tar",
                    "--numeric-owner",
                    "--exclude=./var/cache/apt/archives/*.deb",
                    "-C",
                    str(root),
                    "-cf",
                    str(archive),
                    ".",
                ),
                ("docker", "import", str(archive), OWN_BASE),
            ):
                code, text = await run(*command, docker_host=self.engine.url)
                if code:
                    raise ImageMissing(
                        f"`{' '.join(command[:3])}` ended with {code} while making {OWN_BASE}: {text[-_IMAGE_TAIL:]}"
                    )
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    def _claude(self, arch: str, say: Say) -> Path:
        """The coding CLI's binary for this machine, checked against its known hash. Runs in a thread."""
        path = self._cache / f"claude-{CLAUDE_CODE_VERSION}-{arch}"
        if path.is_file():
            return path
        self._cache.mkdir(parents=True, exist_ok=True)
        said: list[str] = []
        with tempfile.TemporaryDirectory(dir=self._cache) as name:
            folder = Path(name)
            for fetch in (_from_npm, _from_pypi):
                say(f"fetching Claude Code {CLAUDE_CODE_VERSION} {fetch.__doc__}")
                found, text = fetch(folder, arch)
                if found is None:
                    said.append(text.strip()[-600:])
                    continue
                with found.open("rb") as file:
                    actual = hashlib.file_digest(file, "sha256").hexdigest()
                if actual != CLAUDE_SHA256[arch]:
                    said.append(
                        f"the binary {fetch.__doc__} has the SHA-256 {actual}, not {CLAUDE_SHA256[arch]}: it is not used"
                    )
                    continue
                found.chmod(0o755)
                found.replace(path)
                for other in self._cache.glob("claude-*"):  # of releases before
                    if other != path:
                        other.unlink(missing_ok=True)
                return path
        raise ImageMissing(
            f"Claude Code {CLAUDE_CODE_VERSION} could not be fetched: {' / '.join(said)}\nPut the binary at {path} yourself, or make npm or pip reach"
            " their registry, then try again."
        )


def _from_npm(folder: Path, arch: str) -> tuple[Path | None, str]:
    """from npm"""
    package = f"@anthropic-ai/claude-code-linux-{arch}@{CLAUDE_CODE_VERSION}"
    code, text = _run_here(folder, "npm", "pack", "--silent", package)
    archive = next(folder.glob("*.tgz"), None)
    if code or archive is None:
        return None, f"npm pack {package}: {text}"
    with tarfile.open(archive) as packed:
        packed.extract("package/claude", folder, filter="data")
    return folder / "package" / "claude", ""


def _from_pypi(folder: Path, arch: str) -> tuple[Path | None, str]:
    """from PyPI"""
    tag = "manylinux_2_17_aarch64" if arch == "arm64" else "manylinux_2_17_x86_64"
    package = f"claude-agent-sdk=={CLAUDE_AGENT_SDK_VERSION}"
    pip = shutil.which("pip") or shutil.which("pip3")
    command = (pip,) if pip else (sys.executable, "-m", "pip")
    code, text = _run_here(
        folder,
        *command,
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--platform",
        tag,
        "--dest",
        str(folder),
        package,
    )
    wheel = next(folder.glob("*.whl"), None)
    if code or wheel is None:
        return None, f"pip download {package}: {text}"
    shutil.unpack_archive(wheel, folder / "wheel", "zip")
    return folder / "wheel" / "claude_agent_sdk" / "_bundled" / "claude", ""


def _run_here(folder: Path, *command: str) -> tuple[int, str]:
    import subprocess

    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return ended.returncode, ended.stdout + ended.stderr


class EnvironmentImages:
    """A project's own environment on top of the task image, built once for each state of its inputs."""

    def __init__(self, agent: TaskAgentImage) -> None:
        self._agent = agent
        self._known: dict[
            tuple[str, str], str
        ] = {}  # (base commit, or nothing when it cannot matter; setup) -> image
        self._building: dict[str, asyncio.Lock] = {}

    def forget(self, image: str) -> None:
        """A start said the engine no longer has `image`."""
        self._agent.forget()
        self._known = {key: known for key, known in self._known.items() if known != image}

    async def ensure(self, base_commit: str, setup: EnvironmentSetup, read_file: ReadFile, say: Say) -> str:
        """The image's id. Raises `ImageMissing`, `EnvironmentBroken`, `EngineUnavailable`."""
        agent = await self._agent.ensure(say)
        if not (setup.image or setup.dockerfile or setup.setup or setup.inputs):
            return agent
        key = (base_commit if setup.inputs or setup.dockerfile else "", setup.model_dump_json())
        docker = await self._agent.engine.get()
        # what the name of a ready image stands for is looked up each time
        if not setup.image and (known := self._known.get(key)) and await mark(docker, known):
            return known
        made = await self._made(agent, base_commit, setup, read_file, say)
        self._known[key] = made
        return made

    async def _made(
        self, agent: str, commit: str, setup: EnvironmentSetup, read_file: ReadFile, say: Say
    ) -> str:
        wanted = (*setup.inputs, setup.dockerfile) if setup.dockerfile else setup.inputs
        files: dict[str, bytes] = {}
        for path in wanted:
            content = await read_file(commit, path)
            if content is None:
                raise EnvironmentBroken(
                    f"`.codespar.yaml` names {path} for the environment, but commit {commit[:12]} has no such file: add it or take it out"
                )
            files[safe_path(path)] = content
        contents = [part for path in sorted(files) for part in (path.encode(), files[path])]
        docker = await self._agent.engine.get()
        given = digest(json.dumps(setup.wire(), sort_keys=True).encode(), *contents)
        own = f"codespar/project:{given[:16]}" if setup.dockerfile else None
        if setup.image:
            own = await self._given(docker, setup.image)
        recipe = environment_recipe(agent, own, setup, bool(self._agent.ca_bundle))
        inputs = digest(recipe.encode(), given.encode())
        name = f"codespar/environment:{inputs[:16]}"
        async with self._building.setdefault(inputs, asyncio.Lock()):
            if found := await take(docker, name, inputs):
                return found
            say(f"building the project's environment {name}")
            began = time.monotonic()
            try:
                if setup.dockerfile and own:  # it sees the files named in `inputs`, and no more
                    await build(docker, own, given, dict(files), {}, dockerfile=safe_path(setup.dockerfile))
                context: dict[str, bytes | Path] = {"Dockerfile": recipe.encode(), "inputs/.keep": b""}
                context |= {f"inputs/{path}": files[safe_path(path)] for path in setup.inputs}
                await build(docker, name, inputs, context, {})
            except BuildFailed as error:
                raise EnvironmentBroken(
                    f"The project's set-up failed while its image was built: {error}"
                ) from error
            say(f"built {name} in {time.monotonic() - began:.0f} s")
            found = await take(docker, name, inputs)
        self._building.pop(inputs, None)
        if found is None:
            raise ImageMissing(
                f"{name} was built, but the engine does not have it: another program may be removing images"
            )
        return found

    async def _given(self, docker: Docker, image: str) -> str:
        """The id of a ready image: its name may stand for another one tomorrow."""
        if found := await find(docker, image):
            return found
        from aiodocker import DockerError

        try:
            async with asyncio.timeout(900):
                await docker.images.pull(image)
            why = "the engine does not have it after pulling it"
        except (DockerError, TimeoutError) as error:
            why = str(error) or "no end in 15 min"
        if found := await find(docker, image):
            return found
        raise ImageMissing(
            f"The project's image {image} is not here and cannot be pulled: {why}. Pull it on this host with `docker pull`, or change"
            " `environment.image` in `.codespar.yaml`."
        )


def environment_recipe(agent: str, own: str | None, setup: EnvironmentSetup, host_ca: bool) -> str:
    """The generated Dockerfile of an environment."""
    lines: list[str] = []
    if own is None:
        lines += [f"FROM {agent}", "USER 0:0"]
    else:
        need = 'for tool in git python3; do command -v $tool >/dev/null || { echo "the image has no $tool: install git and python3 in it"; exit 1; }; done'
        lines += [
            f"FROM {agent} AS codespar",
            f"FROM {own}",
            f"LABEL {INPUTS_LABEL}=unfinished",  # what a failed build leaves is known by it
            "USER 0:0",
            f"RUN {need}",
            "COPY --from=codespar /opt/codespar /opt/codespar",
            f'RUN HOME=/tmp/home /opt/codespar/bin/claude --version | grep -F "{CLAUDE_CODE_VERSION} " && rm -rf /tmp/home',
            "ENV PATH=/opt/codespar/bin:$PATH LANG=C.UTF-8",
        ]
    if host_ca:  # ARG: for the build alone
        names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
        lines += [f"ARG {name}=/etc/ssl/certs/ca-certificates.crt" for name in names] if own is None else []
    lines += [f"ENV {name}={_quoted(value)}" for name, value in sorted(setup.variables.items())]
    lines += ["COPY inputs/ /setup/", "WORKDIR /setup"]
    lines += [f"RUN {json.dumps(['/bin/sh', '-ec', command])}" for command in setup.setup]
    lines += ["USER 10001:10001", "WORKDIR /tmp", "CMD []"]
    lines += ['ENTRYPOINT ["python3", "-I", "-S", "/opt/codespar/runner.py"]']
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    if "\n" in value:
        raise EnvironmentBroken(
            "a variable in `.codespar.yaml` has more than one line; an environment's variables have one"
        )
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def safe_path(path: str) -> str:
    """A path inside the repository, as it may stand in a build context. Raises `EnvironmentBroken`."""
    parts = path.strip("/").split("/")
    if path.startswith("/") or not path or any(part in ("", ".", "..") for part in parts):
        raise EnvironmentBroken(
            f"`.codespar.yaml` names the file {path!r}; give a plain path from the repository's root, without `..`"
        )
    return "/".join(parts)


async def run(*command: str, docker_host: str | None = None) -> tuple[int, str]:
    """Run a program to its end. Returns (exit code, what it said)."""
    environment = os.environ | ({"DOCKER_HOST": docker_host} if docker_host else {})
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process.returncode or 0, out.decode(errors="replace")
