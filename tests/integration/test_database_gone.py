"""PostgreSQL's host vanishes without a word: nothing that was sent is acknowledged any more, and nobody resets the connection."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import time
from contextlib import suppress

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import URL

from codespar.store.address import GONE_AFTER, postgresql_address, watched
from codespar.store.base import StoreUnavailable
from codespar.store.database import Database
from codespar.store.sibling import engine_database

_ATTACH_FILTER, _DETACH_FILTER = 26, 27  # of <asm-generic/socket.h>
_NOTHING = struct.pack(
    "HBBI", 0x06, 0, 0, 0
)  # the BPF program `ret 0`: every packet is dropped as it arrives


class Router:
    """Passes connections on to the server until its cable is pulled: then its kernel sees no packet of theirs, and acknowledges none."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._sockets: list[socket.socket] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._serving = await asyncio.start_server(self._pass_on, sock=self._listener)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(self._server.host, self._server.port)
        self._writers += [writer, forth]
        self._sockets.append(socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())))
        with suppress(ConnectionError):
            await asyncio.gather(_carry(reader, forth), _carry(back, writer))

    def pull(self) -> None:
        program = ctypes.create_string_buffer(_NOTHING)
        option = struct.pack("HL", 1, ctypes.addressof(program))
        for one in (self._listener, *self._sockets):
            one.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)

    def plug_in(self) -> None:
        """New connections are taken; those of before are lost."""
        self._listener.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)

    def stop(self) -> None:
        self._serving.close()
        for writer in self._writers:
            writer.transport.abort()
        for one in self._sockets:
            one.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.mark.parametrize("acknowledged", [False, True], ids=["while it is asked", "while it answers"])
async def test_a_host_that_vanishes_costs_the_writes_under_way_and_is_found_again(
    postgres_database: str, acknowledged: bool
) -> None:
    server = make_url(postgres_database)
    router = Router(server)
    await router.start()
    quick = {"tcp_user_timeout": "1500", "keepalives_idle": "1", "keepalives_interval": "1"}
    quick |= {"keepalives_count": "1", "connect_timeout": "5"}
    url = server.set(port=router.port).update_query_dict(quick).render_as_string(hide_password=False)
    store = Database(url)
    await store.open()
    assert await store.write(lambda unit: unit.next_ticket()) == 1
    if not acknowledged:
        router.pull()
    began = time.monotonic()
    asking = asyncio.create_task(
        store.write(lambda unit: unit._db.exec_driver_sql("SELECT pg_sleep(90)").all())  # type: ignore[attr-defined]
    )
    if acknowledged:
        await asyncio.sleep(0.5)
        router.pull()
    with pytest.raises(StoreUnavailable):
        await asking
    assert time.monotonic() - began < 60
    with pytest.raises(StoreUnavailable):
        await store.write(lambda unit: unit.next_ticket())
    router.plug_in()
    assert await store.write(lambda unit: unit.next_ticket()) == 2
    await store.close()
    router.stop()


async def test_every_connection_is_watched_unless_the_address_says_otherwise(postgres_database: str) -> None:
    url = postgresql_address(postgres_database)
    own = url.update_query_dict({"tcp_user_timeout": "61000"})
    engines = (watched(url), watched(own), make_url(await engine_database(postgres_database)))
    waits = [await asyncio.to_thread(_waits, one) for one in engines]
    assert waits == [(GONE_AFTER, 10), (61, 10), (GONE_AFTER, 10)]
    store = Database(postgres_database)
    await store.open()
    assert store._connection is not None  # pyright: ignore[reportPrivateUsage]
    driver = store._connection.connection.dbapi_connection  # pyright: ignore[reportPrivateUsage]
    assert driver is not None
    assert _options(driver.fileno()) == (GONE_AFTER, 10)
    await store.close()


def _waits(url: URL) -> tuple[int, int]:
    engine = create_engine(url)
    connection = engine.raw_connection()
    try:
        assert connection.dbapi_connection is not None
        return _options(connection.dbapi_connection.fileno())
    finally:
        connection.close()
        engine.dispose()


def _options(descriptor: int) -> tuple[int, int]:
    """Seconds that data may go unacknowledged, and that the connection may be silent until the host is asked."""
    with socket.socket(fileno=os.dup(descriptor)) as one:
        return (
            one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) // 1000,
            one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        )
