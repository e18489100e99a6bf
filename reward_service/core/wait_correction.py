"""How much longer requests take than was expected of them, learned from those that were let in.

What is let in should be done in time, for its price is paid either way. So a request that takes longer counts more than
one that does not, and what was expected of it is multiplied by the outcome.
"""

MIN_EXPECTED_S = 0.05
"""Of shorter waits nothing is learned: they are mostly the machine's noise."""

RISE, FALL = 0.5, 0.03
"""Weight of the newest request in the average, where it took longer than the average and where it did not."""

MAX_FACTOR = 5.0

MARGIN = 1.3
"""For what the average does not cover."""


class WaitCorrection:
    """Multiplies expected durations by what they turned out to be. Belongs to one thread."""

    def __init__(self) -> None:
        self._factor = 1.0

    @property
    def factor(self) -> float:
        """By which expectations are multiplied."""
        return self._factor * MARGIN

    def learn(self, expected_s: float, took_s: float) -> None:
        """A request took so long, or was not done after so long.

        Args:
            expected_s: Before the correction.
            took_s: From when it was expected.
        """
        if expected_s < MIN_EXPECTED_S:
            return
        ratio = min(max(took_s / expected_s, 1.0), MAX_FACTOR)
        self._factor += (ratio - self._factor) * (RISE if ratio > self._factor else FALL)
