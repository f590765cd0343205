"""`codespar doctor`: what this machine lacks, and the commands that bring it. It looks and never changes anything."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from codespar import __version__
from codespar.channels.cli import clean
from codespar.cli.checks import Check, elsewhere, github, other_models, repositories, tokens
from codespar.cli.client import Client, Refused, Server, ServerUnreachable, locate
from codespar.cli.talk import write, write_json
from codespar.domain.base import CodesparError
from codespar.domain.people import Role

if TYPE_CHECKING:
    from codespar.channels.platforms import Platform
    from codespar.config import ModelSettings, Settings
    from codespar.domain.settings import Section

PYTHON = (3, 11)
GIT = (2, 38)  # `git merge-tree --write-tree`
ENGINE_SECONDS = 5.0
RETIRES_SOON = timedelta(days=60)  # the vendor tells of it at least as long before


async def examine(config: Path | None, environment: Mapping[str, str]) -> list[Check]:
    """Everything a server needs here."""
    from codespar.config import ConfigError, Settings, load_settings

    checks = [_python(), await _git()]
    try:
        settings = load_settings(config, environment)
        checks.append(_config(config, environment, settings))
    except ConfigError as error:
        there = _path(config, environment).exists()
        fix = "correct what is named; `codespar init --force` sets the file aside and writes a valid one"
        fix = fix if there else "codespar init"
        checks.append(Check("configuration", False, str(error), fix))
        settings = Settings()
    checks += await _docker(settings, environment)
    checks.append(await asyncio.to_thread(_data, settings.data_dir))
    port, answers = await _port(settings)
    checks += [port, _key(settings, environment, answers)]
    checks += other_models(settings, environment, answers)
    checks += retiring(settings.model, _path(config, environment).name, datetime.now(UTC).date())
    checks += github(settings, environment, answers)
    if settings.github is not None and answers:
        checks += unreadable(
            settings, (await _told(config, environment, "/api/v1/projects") or {}).get("projects")
        )
    checks += await repositories(settings)
    checks += tokens(settings, environment, answers)
    checks += await _chat(settings, config, environment, answers)
    return checks


def report(checks: list[Check], *, as_json: bool) -> bool:
    """Print the checks. Returns whether everything required is there."""
    ok = all(check.ok for check in checks if check.required)
    if as_json:
        write_json({"ok": ok, "checks": [asdict(check) for check in checks]})
        return ok
    for check in checks:
        write(f"{'✓' if check.ok else '✗' if check.required else '–'} {check.name}: {clean(check.detail)}")
        if not check.ok and check.fix:
            write("\n".join(f"    {line}" for line in check.fix.splitlines()))
    missing = sum(check.required and not check.ok for check in checks)
    write(
        "\nEverything needed is there."
        if ok
        else f"\n{missing} of {len(checks)} checks need you; the commands are above."
    )
    return ok


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "Python",
        sys.version_info >= PYTHON,
        f"{version} (3.11 or newer is needed)",
        "sudo apt-get install python3",
    )


async def _git() -> Check:
    fix = "sudo apt-get install git"
    path = shutil.which("git")
    if path is None:
        return Check("git", False, "the program is not there (2.38 or newer is needed)", fix)
    process = await asyncio.create_subprocess_exec(path, "--version", stdout=asyncio.subprocess.PIPE)
    said = (await process.communicate())[0].decode("utf-8", "replace").strip()
    found = re.search(r"(\d+)\.(\d+)", said)
    version: tuple[int, ...] = (int(found[1]), int(found[2])) if found else ()
    return Check("git", version >= GIT, f"{said.removeprefix('git version ')} (2.38 or newer is needed)", fix)


def _config(config: Path | None, environment: Mapping[str, str], settings: Settings) -> Check:
    path = _path(config, environment)
    if not path.exists():
        return Check(
            "configuration", False, f"{path} is not there; the defaults hold", "codespar init", required=False
        )
    linked = ", ".join(project.name for project in settings.projects) or "no project yet"
    return Check("configuration", True, f"{path} is valid ({linked})")


def _path(config: Path | None, environment: Mapping[str, str]) -> Path:
    return config or Path(environment.get("CODESPAR_CONFIG") or "codespar.yaml")


async def _docker(settings: Settings, environment: Mapping[str, str]) -> list[Check]:
    address = settings.sandbox.docker_host or environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    image = f"codespar/task-agent:{__version__}"
    try:
        version, found = await _ask_engine(address, image)
    except PermissionError:
        fix = 'sudo usermod -aG docker "$USER"\nnewgrp docker'
        return [Check("Docker", False, f"{address}: this user may not speak to the engine", fix)]
    except (OSError, TimeoutError, ValueError) as error:
        fix = "sudo apt-get install docker.io\nsudo systemctl start docker   # or, without systemd: sudo service docker start"
        return [
            Check("Docker", False, f"no engine answers at {address} ({error or type(error).__name__})", fix)
        ]
    told = (
        f"{image} is there"
        if found
        else f"{image} is not built yet; the first task builds it (a minute or two)"
    )
    return [
        Check("Docker", True, f"engine {version} answers at {address}"),
        Check("task-agent image", found, told, required=False),
    ]


async def _ask_engine(address: str, image: str) -> tuple[str, bool]:
    """The engine's version and whether it has the image. Raises OSError, TimeoutError or ValueError when it does not answer."""
    import aiohttp

    scheme, _, rest = address.partition("://")
    if scheme not in ("unix", "tcp", "http"):
        raise ValueError(f"an address starts with unix:// or tcp://, not {scheme}://")
    local = scheme == "unix"
    if local:  # aiohttp would wrap the reason; the bare one tells a missing engine from a missing right
        await _knock(rest)
    base = "http://localhost" if local else f"http://{rest}"
    timeout = aiohttp.ClientTimeout(total=ENGINE_SECONDS)
    connector = aiohttp.UnixConnector(rest) if local else aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            async with session.get(f"{base}/version") as response:
                version = str((await response.json(content_type=None))["Version"])
            async with session.get(f"{base}/images/{image}/json") as response:
                return version, response.status == 200
        except aiohttp.ClientConnectorError as error:
            raise OSError(os.strerror(error.errno) if error.errno else str(error)) from error
        except (aiohttp.ClientError, KeyError, TypeError) as error:
            raise ValueError(f"what answers is no Docker Engine: {error}") from error


async def _knock(path: str) -> None:
    async with asyncio.timeout(ENGINE_SECONDS):
        _, writer = await asyncio.open_unix_connection(path)
    writer.close()
    await writer.wait_closed()


def _data(folder: Path) -> Check:
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        fix = f'sudo install -d -o "$USER" {folder}\n# or set another `data_dir` in codespar.yaml'
        return Check("data folder", False, f"{folder} cannot be written to: {error.strerror}", fix)
    free = shutil.disk_usage(nearest).free / 1024**3
    if free < 2:
        return Check(
            "data folder", False, f"{folder}: only {free:.1f} GiB are free; 2 are needed", f"df -h {nearest}"
        )
    return Check("data folder", True, f"{folder} can be written to, {free:.0f} GiB free")


async def _port(settings: Settings) -> tuple[Check, bool]:
    """The port's check, and whether our own server answers there."""
    host, port = settings.server.host, settings.server.port
    if port == 0:
        return Check("port", True, "0: a free one is picked at start"), False
    shown = f"[{host}]" if ":" in host else host
    async with Client(Server(f"http://{shown}:{port}")) as client:
        try:
            await client.get("/healthz")
            return Check("port", True, f"a server answers at {client.server.url}"), True
        except (ServerUnreachable, Refused):
            pass
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = f"ss -ltnp 'sport = :{port}'   # shows the program; stop it, or set another `server.port`"
            return Check(
                "port", False, f"{shown}:{port} cannot be used: {os.strerror(error.errno or 0)}", fix
            ), False
    return Check("port", True, f"{shown}:{port} is free"), False


def _key(settings: Settings, environment: Mapping[str, str], answers: bool) -> Check:
    name, model = settings.model.api_key_env, settings.model
    if environment.get(name):
        return Check("model", True, f"{name} is set ({model.name})")
    if not model.needs_key:
        return Check(
            "model", True, f"{model.base_url} is on this machine and asked without a key ({model.name})"
        )
    fix = f"export {name}=…   # of the server; `codespar demo` needs none: there a scripted model plays the model's part"
    if answers:
        return Check(
            "model", False, f"{name} is not set here; the server that runs may have it", fix, required=False
        )
    return Check("model", False, f"{name} is not set: tasks would fail", fix)


def retiring(model: ModelSettings, file: str, today: date) -> list[Check]:
    """The models of `file` that their vendor has retired or soon will, and what to set instead. Nothing of those of which that is not known."""
    from codespar.sandbox.pricing import retirement

    checks: list[Check] = []
    own = {"name": ("", model.name), "understanding": ("anthropic:", model.understanding)}
    for setting, (service, named) in (own | {"review": ("anthropic:", model.review)}).items():
        if named is None or not named.startswith(service):
            continue
        found = retirement(named.removeprefix(service))
        if found is None or found.day - today > RETIRES_SOON:
            continue
        day = f"{found.day.day} {found.day:%B %Y}"
        gone = found.day <= today
        told = (
            f"was retired on {day}: calls to it fail"
            if gone
            else f"will be retired on {day}; calls to it fail then"
        )
        fix = f"# set `model.{setting}: {service}{found.instead}` in {file}, then start the server again"
        fails = gone and setting == "name" and urlsplit(model.base_url).hostname == "api.anthropic.com"
        checks.append(Check(f"model.{setting}", False, f"{named} {told}", fix, required=fails))
    return checks


async def _chat(
    settings: Settings, config: Path | None, environment: Mapping[str, str], answers: bool
) -> list[Check]:
    """The chat platforms that are set up: whether each can be used, and whether an owner is known there."""
    from codespar.channels.platforms import platforms

    file = _path(config, environment).name
    sections = settings.channels.configured()
    known = platforms(sections)
    states = (
        await _states(config, environment) if sections and (answers or settings.server.port == 0) else None
    )
    checks: list[Check] = []
    for name, section in sections.items():
        if states is not None:
            checks.append(_state(name, states.get(name)))
        else:
            checks.append(await _secrets(known[name], section, environment, answers))
        checks.append(_owner(settings, name, file))
    return checks + _routes(settings, file)


async def _states(config: Path | None, environment: Mapping[str, str]) -> dict[str, str] | None:
    """What the server that runs here says of its platforms, or None where there is none or it does not tell us."""
    told = (await _told(config, environment, "/api/v1/channels") or {}).get("channels")
    return cast("dict[str, str]", told) if isinstance(told, dict) else None


async def _told(config: Path | None, environment: Mapping[str, str], path: str) -> dict[str, Any] | None:
    """What the server that runs here answers there, or None where there is none or it does not tell us."""
    here = {name: value for name, value in environment.items() if name != "CODESPAR_URL"}
    try:
        async with Client(locate(None, config, here)) as client:
            return await client.get(path)
    except CodesparError:
        return None


def unreadable(settings: Settings, projects: object) -> list[Check]:
    """The projects at GitHub that the server which runs here cannot read, as its list of projects tells it."""
    checks: list[Check] = []
    for one in cast("list[Any]", projects) if isinstance(projects, list) else []:
        match one:
            case {"name": str(name), "repository": str(repository), "problem": str(problem)}:
                if problem and settings.github_name(repository):
                    fix = "# docs/github.md says what GitHub must be shown, and which permissions it needs"
                    checks.append(
                        Check(f"repository of {name}", False, f"the server cannot read it: {problem}", fix)
                    )
            case _:
                pass
    return checks


def _state(name: str, state: str | None) -> Check:
    if state == "connected":
        return Check(name, True, "the server that runs here is connected")
    if state == "starting":
        return Check(
            name, False, "the server that runs here is connecting", "codespar doctor", required=False
        )
    if state is None:
        told = "the server that runs here was started before it was set up"
        return Check(name, False, told, "# end the server, then\ncodespar up")
    return Check(name, False, f"the server that runs here cannot use it: {state}", _page(name))


async def _secrets(
    platform: Platform, section: Section, environment: Mapping[str, str], answers: bool
) -> Check:
    """Whether the adapter can be made. It is never started, so nothing is asked of the platform."""
    from codespar.channels.base import ChannelTools, NotConnected

    with tempfile.TemporaryDirectory() as folder:  # instead of the server's own, in which nothing is touched
        tools = ChannelTools(lambda: datetime.now(UTC), environment, Path(folder))
        try:
            adapter = await asyncio.to_thread(platform.make, section, tools)
        except NotConnected as error:
            told = elsewhere(str(error), answers)
            return Check(platform.name, False, told, _page(platform.name), required=not answers)
        await adapter.stop()
    told = "its secrets are set; whether the platform takes them shows when the server connects"
    return Check(platform.name, True, told)


def _page(name: str) -> str:
    from codespar.channels.platforms import PLATFORMS

    ours = name in {platform.name for platform in PLATFORMS}
    return f"# docs/channels/{name}.md says where each secret comes from" if ours else ""


def _owner(settings: Settings, name: str, file: str) -> Check:
    """Whether the file says how to recognize an owner there. One who was linked by a code is known to the server alone."""
    owners = [person for person in settings.people if person.role is Role.OWNER]
    if known := [person.name for person in owners if name in person.identities]:
        return Check(f"owner on {name}", True, f"{', '.join(known)} can be recognized there")
    told = f"{file} names no owner's id there; one who was linked by a code does not show here"
    project = f" --project {settings.projects[0].name}" if settings.projects else ""
    when = "with the server up" if project else "with the server up and a project linked"
    fix = [
        f"codespar send register{project}   # {when}: a one-time code; `codespar chat` takes `register` too",
        f"# within 10 minutes, send `register <code>` to the bot in a direct message on {name}",
    ]
    if not any(person.identities for person in owners):
        fix.append("# while no owner is known on any platform, `codespar up` prints such a code at its start")
    fix.append(f"# or write the id into {file}, under `people`: identities: {{{name}: <the id>}}")
    return Check(f"owner on {name}", False, told, "\n".join(fix), required=False)


def _routes(settings: Settings, file: str) -> list[Check]:
    """The conversations of projects on platforms that are not set up."""
    configured = settings.channels.configured()
    return [
        Check(
            f"{project.name} on {route.channel}",
            False,
            f"{file}: projects[{number}].channels[{place}].channel: {route.channel} is not set up under `channels`,"
            f" so nothing is heard or said in {route.conversation}",
            f"# set `channels.{route.channel}` in {file}, or take this entry out",
            required=False,
        )
        for number, project in enumerate(settings.projects)
        for place, route in enumerate(project.channels)
        if route.channel not in configured
    ]
