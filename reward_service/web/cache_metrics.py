"""Prometheus metrics of the reward cache."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from reward_service.cache.disk_store import DiskStore
from reward_service.cache.memory_store import MemoryStore


class CacheMetrics:
    """Counts what the cache tells it; its `CacheTelemetry`.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "reward_cache_requests_total",
            "Inputs: found in the cache, computed, or under way for another request",
            ["model", "result"],
            registry=registry,
        )
        self._disk_events = Counter(
            "reward_cache_disk_events_total", "What became of scores on disk", ["event"], registry=registry
        )
        self._bytes = Gauge("reward_cache_bytes", "What the cached scores take", ["tier"], registry=registry)
        self._entries = Gauge("reward_cache_entries", "Inputs whose scores are in memory", registry=registry)
        self._disk_up = Gauge(
            "reward_cache_disk_up", "1 while scores are kept on disk, 0 while the disk fails", registry=registry
        )

    def watch(self, memory: MemoryStore, disk: DiskStore | None) -> None:
        """Show the sizes of the two, and whether the disk works."""
        self._bytes.labels("memory").set_function(lambda: memory.size_bytes)
        self._entries.set_function(lambda: memory.entries)
        if disk is not None:
            self._bytes.labels("disk").set_function(lambda: disk.size_bytes)
            self._disk_up.set_function(lambda: disk.works)

    def cache_requests(self, model: str, *, hits: int, misses: int, coalesced: int) -> None:
        """See `cache.score_cache.CacheTelemetry`."""
        for result, count in (("hit", hits), ("miss", misses), ("coalesced", coalesced)):
            if count:
                self._requests.labels(model, result).inc(count)

    def disk_event(self, event: str, count: int) -> None:
        """See `cache.disk_store.DiskTelemetry`."""
        if count:
            self._disk_events.labels(event).inc(count)
