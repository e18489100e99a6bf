"""What all the models of a service share: the memory, and the file if there is one."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from reward_service.cache.codec import decode_scores
from reward_service.cache.disk_store import DiskStore, DiskTelemetry
from reward_service.cache.memory_store import MemoryStore
from reward_service.domain import ItemScore

logger = logging.getLogger(__name__)

DISK_PATIENCE_S = 0.25
"""A disk that takes longer to answer is not waited for: the score is computed."""

Scores = tuple[ItemScore, ...]
"""What each head of a model says of one item."""


class CacheTelemetry(DiskTelemetry, Protocol):
    """Is told how the scores of each model's items came, and what happens on disk."""

    def cache_requests(self, model: str, *, hits: int, misses: int, coalesced: int) -> None:
        """One request's items: found, computed for it, or under way for another one."""
        ...


class ScoreCache:
    """Keeps scores by key. For one event loop.

    Args:
        memory: The most recently used.
        disk: All that fits into a file; None keeps nothing longer than the process lives.
        telemetry: Is told of hits and misses.
    """

    def __init__(self, memory: MemoryStore, disk: DiskStore | None, telemetry: CacheTelemetry) -> None:
        self.telemetry = telemetry
        self._memory = memory
        self._disk = disk

    @property
    def has_disk(self) -> bool:
        """Whether `find_on_disk` can find anything."""
        return self._disk is not None

    def find(self, key: bytes, heads: int) -> Scores | None:
        """Scores in memory; their use is told to the disk."""
        content = self._memory.get(key)
        if content is None:
            return None
        if self._disk is not None:
            self._disk.touch(key)
        return decode_scores(content, heads)

    async def find_on_disk(
        self, keys: Sequence[bytes], heads: int, patience_s: float = DISK_PATIENCE_S
    ) -> dict[bytes, Scores]:
        """Scores on disk, which are in memory from then on. Nothing where the disk fails or dawdles."""
        if self._disk is None:
            return {}
        reading = asyncio.wrap_future(self._disk.read(keys))
        # `wait` and not a time-out: what is cancelled may have begun.
        done, _ = await asyncio.wait({reading}, timeout=min(patience_s, DISK_PATIENCE_S))
        if not done:
            self.telemetry.disk_event("late", 1)
            return {}
        found: dict[bytes, Scores] = {}
        for key, content in reading.result().items():
            try:
                found[key] = decode_scores(content, heads)
            except ValueError:
                logger.exception("a row of the cache cannot be read, and will be computed anew")
                continue
            self._memory.put(key, content)
        return found

    def keep(self, key: bytes, content: bytes) -> None:
        """Keep scores that were encoded."""
        self._memory.put(key, content)
        if self._disk is not None:
            self._disk.put(key, content)

    def close(self, timeout_s: float) -> None:
        """Write what waits to disk, and close it."""
        if self._disk is not None:
            self._disk.close(timeout_s)
