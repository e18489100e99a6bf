"""Settings of the reward cache: the section `cache` of the service's file."""

from pathlib import Path

from pydantic import Field

from reward_service.section import Section


class CacheSettings(Section):
    """Where scores that were computed are kept.

    Attributes:
        memory_bytes: Of all the models' scores in memory; 0 keeps none there.
        path: SQLite file that outlives the process; none is written if absent.
        disk_bytes: Size of that file.
    """

    memory_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    path: Path | None = None
    disk_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
