"""Settings of the cache -> the cache, and what else than a model's version its keys must tell apart."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from reward_service.cache.disk_file import ForeignFileError
from reward_service.cache.disk_store import DiskStore
from reward_service.cache.memory_store import MemoryStore
from reward_service.cache.score_cache import CacheTelemetry, ScoreCache
from reward_service.cache_settings import CacheSettings
from reward_service.config import Precision, Runtime
from reward_service.errors import ConfigError
from reward_service.registry.exports import ONNX_FILE
from reward_service.registry.store import Published
from reward_service.runtimes.load import onnx_export
from reward_service.runtimes.machine import environment

CLOSE_TIMEOUT_S = 5.0
"""How long what waits may still be written at the end."""


class Watcher(CacheTelemetry, Protocol):
    """Counts, and shows sizes."""

    def watch(self, memory: MemoryStore, disk: DiskStore | None) -> None:
        """Show the sizes of the two."""
        ...


@contextmanager
def opened_cache(settings: CacheSettings, metrics: Watcher) -> Iterator[ScoreCache | None]:
    """The cache for as long as the service runs; None where the settings switch it off.

    Raises:
        ConfigError: The file cannot be there, or is somebody else's.
    """
    if not settings.memory_bytes and settings.path is None:
        yield None
        return
    memory = MemoryStore(settings.memory_bytes)
    disk = None
    if settings.path is not None:
        if settings.path.is_dir() or not settings.path.parent.is_dir():
            raise ConfigError("settings", [f"cache.path: {settings.path}: no file can be there"])
        try:
            disk = DiskStore(settings.path, settings.disk_bytes, metrics)
        except ForeignFileError as error:
            raise ConfigError("settings", [f"cache.path: {error}"]) from error
    metrics.watch(memory, disk)
    cache = ScoreCache(memory, disk, metrics)
    try:
        yield cache
    finally:
        cache.close(CLOSE_TIMEOUT_S)


def computation_of(published: Published, runtime: str, devices: Sequence[str]) -> dict[str, Any]:
    """What changes a store model's numbers besides its version: the machine, the libraries, the exported file.

    Args:
        published: The version.
        runtime: As the backend names it, such as `openvino-bf16`.
        devices: `cpu`, `cuda` or `cuda:N`: wherever it may be computed.
    """
    library, _, precision = runtime.partition("-")
    kinds = {device.partition(":")[0]: environment(Runtime(library), device) for device in devices}
    export = onnx_export(Runtime(library), Precision(precision))
    return {
        "places": {kind: where.model_dump() for kind, where in kinds.items()},
        "file": published.export_record(export).files[ONNX_FILE] if export else "",
    }
