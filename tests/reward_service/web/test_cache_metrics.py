from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from reward_service.cache.disk_store import DiskStore
from reward_service.cache.memory_store import ENTRY_BYTES, MemoryStore
from reward_service.web.cache_metrics import CacheMetrics


def test_requests_are_counted_by_model_and_result() -> None:
    registry = CollectorRegistry()
    metrics = CacheMetrics(registry)
    metrics.cache_requests("m", hits=3, misses=2, coalesced=0)
    metrics.cache_requests("m", hits=1, misses=0, coalesced=4)

    def count(result: str) -> float | None:
        return registry.get_sample_value("reward_cache_requests_total", {"model": "m", "result": result})

    assert [count(result) for result in ("hit", "miss", "coalesced")] == [4, 2, 4]


def test_sizes_and_the_disks_health_are_shown(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = CacheMetrics(registry)
    memory, disk = MemoryStore(10_000), DiskStore(tmp_path / "c.db", 10**8, metrics)
    metrics.watch(memory, disk)

    def value(name: str, **labels: Any) -> float | None:
        return registry.get_sample_value(f"reward_cache_{name}", labels)

    memory.put(b"k" * 32, b"value")
    disk.put(b"k" * 32, b"value")
    assert disk.flush(20.0)
    assert (value("bytes", tier="memory"), value("entries")) == (ENTRY_BYTES + 5, 1)
    assert value("bytes", tier="disk") == disk.size_bytes > 0
    assert value("disk_up") == 1
    assert value("disk_events_total", event="written") == 1
    disk.close(20.0)
