"""Telling in the log that scores are not recorded, without a line for each request."""

import logging
import time

logger = logging.getLogger(__name__)

TELL_EVERY_S = 60.0
"""Time between two lines, at least."""


class DropLog:
    """Adds up what was dropped. Not safe to use from several threads at once.

    Args:
        name: The ledger's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._untold = 0
        self._told_at_s: float | None = None

    def add(self, scores: int) -> None:
        """Some scores were dropped."""
        self._untold += scores
        self.tell_if_due()

    def tell_if_due(self) -> None:
        """Tell what has not been told yet, unless something was told just now."""
        if self._told_at_s is None or time.monotonic() - self._told_at_s >= TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Tell what has not been told yet."""
        if self._untold:
            logger.error("the ledger in %s: %d scores were dropped, not recorded", self._name, self._untold)
            self._told_at_s = time.monotonic()
            self._untold = 0
