"""How long scores stay in the ledger: whole minutes go, the oldest first. The minute that is being written stays."""

from dataclasses import dataclass

from reward_service.ledger.database import Database
from reward_service.ledger.tables import MS_PER_MINUTE

FILL_SHARE = 0.95
"""A ledger that is over its bound is emptied to this share, so that not every pass must delete."""

MINUTES_PER_PASS = 60
"""Deleted at most before the next scores are written."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What may stay.

    Attributes:
        max_age_ms: Of a score; any if None.
        max_bytes: Of all rows, about.
    """

    max_age_ms: int | None
    max_bytes: int

    def expire(self, database: Database, now_ms: int) -> tuple[int, bool]:
        """Delete what may not stay.

        Args:
            database: From what.
            now_ms: Since 1970.

        Returns:
            expired: How many scores were deleted.
            is_done: Whether all of it was; otherwise there is more for another pass.
        """
        size = database.size_bytes()
        aim = self.max_bytes if size <= self.max_bytes else int(self.max_bytes * FILL_SHARE)
        expired = 0
        oldest = database.oldest(MINUTES_PER_PASS)
        gone = 0
        for minute, size_of_minute in oldest:
            if not (self._is_old(minute, now_ms) or size > aim) or minute >= now_ms // MS_PER_MINUTE:
                break
            expired += database.forget(minute)
            size -= size_of_minute
            gone += 1
        if gone:
            database.give_back()
        return expired, gone < MINUTES_PER_PASS

    def _is_old(self, minute: int, now_ms: int) -> bool:
        return self.max_age_ms is not None and (minute + 1) * MS_PER_MINUTE <= now_ms - self.max_age_ms
