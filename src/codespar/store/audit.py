"""The audit chain: every entry carries the SHA-256 of itself and the entry before it.

`verify` recomputes the whole chain and finds any edit, removal, insertion or reordering; the head kept beside the table
shows a cut-off tail.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, cast

from codespar.domain.base import Value

GENESIS = "0" * 64


class AuditReport(Value):
    ok: bool
    entries: int
    problem: str | None = None


def canonical(body: dict[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8 as it is. What UTF-8 cannot say (a file name's stray bytes) becomes `?`."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="replace").decode()


def chain_hash(body: str, previous: str) -> str:
    """SHA-256 (hex) over the previous hash and the canonical JSON of the entry."""
    return hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()


def _seq(body: str) -> object:
    """The entry's own number, or None for a text that was never one of ours."""
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, object], entry).get("seq") if isinstance(entry, dict) else None


def verify(entries: Iterable[tuple[int, str, str, str]], head_seq: int, head_hash: str) -> AuditReport:
    """Check (seq, body, previous, hash) rows in order against each other and the head."""
    expected = GENESIS
    count = 0
    for seq, body, previous, found in entries:
        count += 1
        if seq != count:
            return AuditReport(
                ok=False, entries=count, problem=f"entry {count} is missing or out of order (found {seq})"
            )
        if previous != expected:
            return AuditReport(
                ok=False, entries=count, problem=f"entry {seq} does not follow entry {seq - 1}"
            )
        if chain_hash(body, previous) != found or _seq(body) != seq:
            return AuditReport(
                ok=False, entries=count, problem=f"entry {seq} was changed after it was written"
            )
        expected = found
    if count != head_seq or expected != (head_hash or GENESIS):
        return AuditReport(
            ok=False, entries=count, problem=f"the chain ends at entry {count}, but {head_seq} were written"
        )
    return AuditReport(ok=True, entries=count)
