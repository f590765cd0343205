"""Serves a running house: binds the port, answers requests, and ends in order on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys

import structlog
import uvicorn

from codespar.app import PART_SECONDS, App, now
from codespar.app.stopping import cancelled, stop_each
from codespar.config import Settings
from codespar.domain.base import CodesparError

log = structlog.get_logger(__name__)


class PortTaken(CodesparError):
    """Another program listens where the server should."""


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


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises `CodesparError` for what stops it from starting."""
    from codespar.web.api import create_app

    app = App(settings)
    try:
        await app.start()
        listener = _bind(settings.server.host, settings.server.port)
    except BaseException:
        await app.stop()
        raise
    address = listener.getsockname()
    config = uvicorn.Config(
        create_app(app, now),
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
    # What is there now stays: the collector need not look at it again, and need not look for so little.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()
    sys.setswitchinterval(0.0005)  # the loop and the writer take turns: neither waits long for the other
    log.info("server.ready", url=f"http://{address[0]}:{address[1]}", data=str(app.folder))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve_quietly(server, listener))
    engine = asyncio.create_task(app.start_engine())
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
