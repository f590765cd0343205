"""The Prometheus page: what this process has counted."""

from __future__ import annotations

from collections import Counter, defaultdict

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
        self._ignored: Counter[tuple[str, str]] = Counter()
        self._delivered: Counter[str] = Counter()
        self._removed: Counter[str] = Counter()
        self._freed: Counter[str] = Counter()  # bytes
        self._waited: defaultdict[str, float] = defaultdict(float)  # seconds

    def ignored(self, channel: str, why: str) -> None:
        """Count something said on a chat platform that nobody listens to."""
        self._ignored[channel, why] += 1

    def delivered(self, channel: str, seconds: float) -> None:
        """Count a response that a chat platform has taken, so long after it was said."""
        self._delivered[channel] += 1
        self._waited[channel] += seconds

    def count(self, kind: str) -> None:
        """Count a notice of the store."""
        self._counts[kind] += 1

    def removed(self, what: str, count: int, size: int) -> None:
        """Count what housekeeping removed, and its bytes."""
        self._removed[what] += count
        self._freed[what] += size

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, Gauge, generate_latest
        from prometheus_client import Counter as Series

        registry = CollectorRegistry()
        info = Gauge("codespar_build_info", "The running release", ["version"], registry=registry)
        info.labels(__version__).set(1)
        for kind, (name, meaning) in COUNTED.items():
            Series(name, meaning, registry=registry).inc(self._counts[kind])
        ignored = Series(
            "codespar_ignored",
            "Said on a chat platform, and not for us",
            ["channel", "why"],
            registry=registry,
        )
        for (channel, why), times in self._ignored.items():
            ignored.labels(channel, why).inc(times)
        taken = Series(
            "codespar_delivered", "Responses taken by chat platforms", ["channel"], registry=registry
        )
        waited = Series(
            "codespar_delivery_seconds", "Time from said to taken, in all", ["channel"], registry=registry
        )
        for channel, times in self._delivered.items():
            taken.labels(channel).inc(times)
            waited.labels(channel).inc(self._waited[channel])
        removed = Series(
            "codespar_removed",
            "Images, attachments and folders that nobody needed any more",
            ["what"],
            registry=registry,
        )
        freed = Series("codespar_removed_bytes", "What their removal freed", ["what"], registry=registry)
        for what, count in self._removed.items():
            removed.labels(what).inc(count)
            freed.labels(what).inc(self._freed[what])
        return generate_latest(registry)
