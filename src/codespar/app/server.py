"""Serves a running house: binds the port, answers requests, and ends in order on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from codespar.app import PART_SECONDS, App, now
from codespar.app.stopping import cancelled, stop_each
from codespar.config import Settings
from codespar.domain.base import CodesparError
from codespar.web.edge import Edge

log = structlog.get_logger(__name__)


ROOM = 2 * 1024**3  # bytes that should be free on the data folder's disk


class PortTaken(CodesparError):
    """Another program listens where the server should."""


class FolderUnusable(CodesparError):
    """The server cannot keep anything where it should."""


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"cannot listen on {host}:{port}: {error.strerror}. Stop the program that listens there, or set another `server.port` "
            "(port 0 picks a free one)."
        ) from error
    listener.setblocking(False)
    return listener


def _look_at_folder(folder: Path) -> None:
    """Make the data folder. Raises `FolderUnusable`; a disk that is nearly full is told alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderUnusable(
            f"the data folder {folder} cannot be written to: {os.strerror(error.errno or 0)}. Give it to this user, or set another "
            "`data_dir` in codespar.yaml."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        told = "the disk is nearly full: when it is, nothing can be kept and every message is refused"
        log.warning("data.nearly-full", data=str(folder), free_mib=free // 1024**2, means=told)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises `CodesparError` for what stops it from starting."""
    _look_at_folder(settings.data_dir.resolve())
    app = App(settings)
    try:
        await app.start()
        listener = _bind(settings.server.host, settings.server.port)
    except BaseException:
        await app.stop()
        raise
    address = listener.getsockname()
    api = asyncio.create_task(asyncio.to_thread(_make_api, app), name="api")
    config = uvicorn.Config(
        Edge(_once_made(api), app, now),
        http="httptools",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,  # who asks is known by a token, never by a header that a proxy may have set
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    (app.folder / "server.address").write_text(f"http://{address[0]}:{address[1]}\n")
    # What is there now stays, and next to none of it is garbage: the collector need not look at it, and need not look for so little.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()
    sys.setswitchinterval(0.0005)  # the loop and the writer take turns: neither waits long for the other
    log.info("server.ready", url=f"http://{address[0]}:{address[1]}", data=str(app.folder))
    if settings.model.needs_key and not settings.model.api_key(os.environ):
        told = f"tasks will fail: set {settings.model.api_key_env} and start again; everything else works"
        log.warning("model.no-key", means=told)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve_quietly(server, listener))
    engine = asyncio.create_task(_complete(app, api))
    try:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping, engine}, return_when=asyncio.FIRST_COMPLETED)
        if engine.done():
            engine.result()
            gc.freeze()  # what the engine brought with it stays, too
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        app.bus.close()
        left = await stop_each(
            [("requests", lambda: serving), ("starting", lambda: cancelled(engine))], PART_SECONDS
        )
        left += await app.stop()
    if left:
        # Nothing is lost by it: what counts is committed. Waiting for them at the interpreter's end could last for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _make_api(app: App) -> ASGIApp:
    from codespar.web.api import create_api  # FastAPI: a quarter of the start, and no message needs it

    return create_api(app, now)


def _once_made(api: asyncio.Future[ASGIApp]) -> ASGIApp:
    """The API: what is asked of it before it is made waits for it."""

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        await (await asyncio.shield(api))(scope, receive, send)

    return forward


async def _complete(app: App, api: asyncio.Future[ASGIApp]) -> None:
    """Bring up what messages are taken in without, one after the other: imports beside each other only slow each other down."""
    await api
    await app.start_engine()


async def _serve_quietly(server: uvicorn.Server, listener: socket.socket) -> None:
    """uvicorn without its own signal handlers: ours decide."""
    config = server.config
    if not config.loaded:
        config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    if not server.should_exit:
        await server.main_loop()
        await server.shutdown(sockets=[listener])
