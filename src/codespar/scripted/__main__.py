"""`python -m codespar.scripted --port N [--seconds S]`: the demo's scripted model, until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from codespar.scripted.demo import DEMO_LIBRARY
from codespar.scripted.server import ScriptedModel


async def serve(port: int, seconds: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model = ScriptedModel(DEMO_LIBRARY, seconds=seconds)
    await model.start(port)
    sys.stdout.write(f"{model.url}\n")
    sys.stdout.flush()
    await stop.wait()
    await model.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="codespar.scripted", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the address is printed")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long an answer takes")
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.seconds))


if __name__ == "__main__":
    main()
