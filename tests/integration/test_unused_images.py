"""What becomes of our container images that nobody uses, on a real Docker Engine that others use at the same time.

Every image here is of a few bytes and was, by its mark, used last ten days ago: too young for the servers of other tests, which tidy the same
engine by the default of 14 days. What is removed here is a test's own alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from codespar.sandbox.dockerengine import INPUTS_LABEL, BuildFailed, EngineClient, build
from codespar.sandbox.imageuse import MARK, Listed, mark, remove_one, remove_unused, take

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True).returncode != 0,
        reason="no Docker Engine answers",
    ),
]


def before() -> datetime:
    return datetime.now(UTC) - timedelta(days=8)


def old_mark(id: str) -> str:
    return f"{MARK}:{id.removeprefix('sha256:')[:12]}-{datetime.now(UTC) - timedelta(days=10):%Y%m%d}"


class Others(Collection[str]):
    """Every image but these, and what else is to be kept: as of when it is looked at, for other tests make some all the time."""

    def __init__(self, own: Sequence[str], keep: Sequence[str]) -> None:
        self._own = own
        self._keep = keep

    def _now(self) -> set[str]:
        return {*self._keep, *docker("image", "ls", "-aq", "--no-trunc").split()}.difference(self._own)

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __contains__(self, image: object) -> bool:
        return image in self._now()

    def __len__(self) -> int:
        return len(self._now())


class Images:
    """Images of a test's own."""

    def __init__(self, engine: EngineClient) -> None:
        self.engine = engine
        self._made: list[str] = []

    def make(
        self, *names: str, label: str | None = INPUTS_LABEL, base: str = "", old: bool = True
    ) -> tuple[str, str]:
        """An image of a few bytes under a new name (and more). Returns (name, id)."""
        key = uuid.uuid4().hex[:16]
        name = f"codespar/environment:{key}"
        labelled = [] if label is None else ["--change", f"LABEL {label}={key}"]
        if base:
            recipe = f"FROM {base}\nLABEL {INPUTS_LABEL}={key}\nENV KEY={key}\n"
            docker("build", "-q", "-t", name, "-", text=recipe.encode())
        else:
            docker("import", *labelled, "-", name, text=archive(key))
        id = docker("image", "inspect", "-f", "{{.Id}}", name)
        self._made.append(id)
        for other in names:
            docker("tag", id, other)
        if old:
            docker("tag", id, old_mark(id))
        return name, id

    def there(self, reference: str) -> bool:
        return subprocess.run(["docker", "image", "inspect", reference], capture_output=True).returncode == 0

    def names(self, id: str) -> set[str]:
        return set(json.loads(docker("image", "inspect", id))[0]["RepoTags"])

    async def remove_unused(self, *keep: str, engine: EngineClient | None = None) -> tuple[int, int]:
        return await remove_unused(engine or self.engine, before(), Others(self._made, keep))

    async def listed(self, id: str) -> Listed:
        shown = await (await self.engine.get()).images.list(all="true")
        return next(one for one in map(Listed.of, shown) if one.id == id)

    def clear(self) -> None:
        for id in reversed(self._made):
            subprocess.run(["docker", "rmi", "-f", id], capture_output=True)


def docker(*arguments: str, text: bytes | None = None) -> str:
    ended = subprocess.run(["docker", *arguments], check=True, capture_output=True, input=text)
    return ended.stdout.decode().strip()


def archive(content: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


@pytest.fixture
async def images() -> AsyncIterator[Images]:
    engine = EngineClient()
    made = Images(engine)
    try:
        yield made
    finally:
        made.clear()
        await engine.close()


async def test_an_image_nobody_has_used_for_long_goes_with_all_its_names(images: Images) -> None:
    name, id = images.make(f"codespar/task-agent:{uuid.uuid4().hex[:8]}")
    removed, freed = await images.remove_unused()
    assert not images.there(id)
    assert not images.there(name)
    assert removed >= 1
    assert freed > 0


async def test_what_it_stood_on_goes_with_it_and_not_before(images: Images) -> None:
    _, below = images.make()
    _, above = images.make(base=below, old=False)
    await images.remove_unused()
    assert images.there(below), "an image stands on it"
    docker("tag", above, old_mark(above))
    await images.remove_unused()
    assert not images.there(above)
    assert not images.there(below)


@pytest.mark.parametrize("why", ["no label of ours", "a name of somebody's own", "used today", "wanted"])
async def test_what_is_not_ours_to_remove_stays(images: Images, why: str) -> None:
    own = f"somebody/image:{uuid.uuid4().hex[:8]}"
    extra = (own,) if why == "a name of somebody's own" else ()
    label = None if why == "no label of ours" else INPUTS_LABEL
    name, id = images.make(*extra, label=label)
    if why == "used today":
        assert await take(await images.engine.get(), name, json_label(id)) == id
    known = images.names(id)
    await images.remove_unused(*([name] if why == "wanted" else []))
    assert images.names(id) == known


def json_label(id: str) -> str:
    labels = json.loads(docker("image", "inspect", id))[0]["Config"]["Labels"]
    return str(labels[INPUTS_LABEL])


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_image_that_an_ended_container_has_keeps_its_name(images: Images, at_once: bool) -> None:
    name, id = images.make(f"codespar/project:{uuid.uuid4().hex[:8]}")
    container = docker("create", id, "nothing")
    try:
        known = images.names(id)
        if at_once:  # as when the container was made after the engine had told which there are
            assert not await remove_one(await images.engine.get(), await images.listed(id), before())
        else:
            await images.remove_unused()
        assert images.there(name)
        assert {one for one in known if not one.startswith(MARK)} <= images.names(id)
    finally:
        docker("rm", container)
    if not at_once:
        await images.remove_unused()
        assert not images.there(id), "nothing holds it any more"


async def test_whoever_has_marked_an_image_can_start_from_it_however_it_is_being_removed(
    images: Images,
) -> None:
    client = await images.engine.get()
    for turn in range(8):
        name, id = images.make()
        listed = await images.listed(id)

        async def use(id: str = id, turn: int = turn) -> bool:
            await asyncio.sleep(turn * 0.005)
            return await mark(client, id)

        marked, gone = await asyncio.gather(use(), remove_one(client, listed, before()))
        assert images.there(id) == marked == (id not in gone)
        if marked:
            docker("rm", docker("create", id, "nothing"))
            assert images.there(name), "its name is given back"


async def test_two_servers_that_remove_at_the_same_time_do_not_get_in_each_others_way(images: Images) -> None:
    made = [images.make(f"codespar/task-agent:{uuid.uuid4().hex[:8]}")[1] for _ in range(3)]
    other = EngineClient()
    try:
        await asyncio.gather(images.remove_unused(), images.remove_unused(engine=other))
    finally:
        await other.close()
    assert not any(images.there(id) for id in made)


async def test_the_engine_is_asked_in_vain_for_an_image_that_is_gone(images: Images) -> None:
    name, id = images.make()
    inputs = json_label(id)
    docker("rmi", *images.names(id))
    client = await images.engine.get()
    assert await mark(client, id) is False
    assert await take(client, name, inputs) is None


@pytest.mark.parametrize(
    ("said", "builds"),
    [
        ("failed to get digest sha256:2ab6: open /var/lib/docker/image: no such file or directory", 2),
        ("No such image: sha256:2ab6", 2),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", 1),
    ],
)
async def test_a_build_is_tried_once_more_when_a_cached_step_was_removed_under_it(
    tmp_path: Path, said: str, builds: int
) -> None:
    """The engine's words are those of a real one; when they come is a matter of milliseconds, so another says them here."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        await request.read()
        if not request.path.endswith("/build"):
            return web.json_response({"ApiVersion": "1.41", "Version": "20.10"})
        asked += 1
        return web.json_response(
            {"error": said, "errorDetail": {"message": said}} if asked == 1 else {"stream": "ok"}
        )

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    engine = EngineClient(f"unix://{tmp_path / 'engine.sock'}")
    try:
        with contextlib.nullcontext() if builds == 2 else pytest.raises(BuildFailed, match="non-zero"):
            await build(await engine.get(), "codespar/environment:x", "x", {"Dockerfile": b"FROM x"}, {})
    finally:
        await engine.close()
        await runner.cleanup()
    assert asked == builds
