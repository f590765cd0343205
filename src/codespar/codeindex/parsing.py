"""What a parsing process does: it answers batches over its pipes until they close.

It is started for every change of a repository, mostly for a file or two, so that its start is what it costs: it imports what parsing needs, and
above all no asyncio, which would take as long as all the rest.
"""

from __future__ import annotations

import pickle
import sys
from typing import BinaryIO

from codespar.codeindex.extract import extract_all

HEAD = 8  # bytes of a frame's length


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer batches until the pipe closes."""
    while head := requests.read(HEAD):
        sources = pickle.loads(requests.read(int.from_bytes(head, "big")))
        data = pickle.dumps(extract_all(sources))
        answers.write(len(data).to_bytes(HEAD, "big") + data)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
