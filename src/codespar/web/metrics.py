"""The Prometheus page: what this process has counted."""

from __future__ import annotations

from collections import Counter

from codespar import __version__

COUNTED = {
    "inbox": ("codespar_deliveries", "Deliveries committed to the inbox"),
    "message": ("codespar_messages", "Messages committed to the outbox, edits included"),
    "intent": ("codespar_intents", "Intents written for the engine"),
    "task": ("codespar_task_changes", "Changes of tasks"),
}
"""By kind of notice: the metric's name, and what it counts."""


class Metrics:
    """Counts the store's notices. The Prometheus client is loaded when somebody first asks for the page."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, kind: str) -> None:
        """Count a notice of the store."""
        self._counts[kind] += 1

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, Gauge, generate_latest
        from prometheus_client import Counter as Series

        registry = CollectorRegistry()
        info = Gauge("codespar_build_info", "The running release", ["version"], registry=registry)
        info.labels(__version__).set(1)
        for kind, (name, meaning) in COUNTED.items():
            Series(name, meaning, registry=registry).inc(self._counts[kind])
        return generate_latest(registry)
