"""The Prometheus page: counters of this process, and gauges read from the store by whoever last refreshed them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from codespar import __version__


class Metrics:
    """One registry a server, so that two servers in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        info = Gauge("codespar_build_info", "The running release", ["version"], registry=self.registry)
        info.labels(__version__).set(1)
        self.deliveries = Counter(
            "codespar_deliveries", "Deliveries committed to the inbox", registry=self.registry
        )
        self.messages = Counter(
            "codespar_messages", "Messages committed to the outbox, edits included", registry=self.registry
        )
        self.intents = Counter("codespar_intents", "Intents written for the engine", registry=self.registry)
        self.tasks = Counter("codespar_task_changes", "Changes of tasks", registry=self.registry)

    def count(self, kind: str) -> None:
        """Count a notice of the store."""
        counter = {
            "inbox": self.deliveries,
            "message": self.messages,
            "intent": self.intents,
            "task": self.tasks,
        }.get(kind)
        if counter is not None:
            counter.inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)
