"""What a batch costs: seconds = a x padded tokens + b, learned from the batches that were run.

Least squares with forgetting, kept as weighted sums. They cannot wind up: where all batches are of one size, and `a`
and `b` cannot be told apart, all the cost is put on the tokens.
"""

import math
import threading
from dataclasses import dataclass

FORGETTING = 0.98
"""Weight that a batch loses with each later one: about the last 50 count."""

MIN_SPREAD = 1e-3
"""Variance of the sizes, as a share of their mean square, below which a straight line through the origin is fitted."""

TINY_TOKEN_S = 1e-9
"""Never 0, which would mean that nothing is known."""

OVERHEAD_SHARE = 0.1
"""Share of a short batch's time that may go to `b`."""

SHORT_BATCH_S = 0.02
"""So long a short batch takes where `b` tells nothing."""

SURE_ERRORS = 2.0
"""So many standard errors below its estimate `b` is taken to be where padding is added for its sake."""

OUTLIER = 10.0
"""A batch counts as so many times what was expected of it, at most: a machine that was suspended for a minute is as
fast as before. One that has become slower is believed after some twenty batches."""


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate.

    Attributes:
        token_s: a, seconds for a padded token; 0 before the first batch.
        batch_s: b, seconds for a batch.
        padding: Padded tokens for a real one.
        item_tokens: Real tokens of an item, on average.
        overhead_tokens: b / a, for as many padded tokens a batch could be longer in the time that another one costs
            beside its tokens; less where it is not sure, 0 where nothing is.
        short_batch_tokens: The least batch whose overhead is a small share of its time; None where nothing is known.
    """

    token_s: float = 0.0
    batch_s: float = 0.0
    padding: float = 1.0
    item_tokens: float = 0.0
    overhead_tokens: float = 0.0
    short_batch_tokens: int | None = None

    def of_batch(self, padded_tokens: int) -> float:
        """Seconds for one batch."""
        return self.token_s * padded_tokens + (self.batch_s if self.token_s else 0.0)

    def of_queue(self, real_tokens: float, batch_tokens: int) -> float:
        """Seconds for so many tokens in full batches of so many padded tokens; 0 where nothing is known."""
        padded = real_tokens * self.padding
        full = max(batch_tokens, self.item_tokens)
        return self.of_batch(0) * padded / full + self.token_s * padded if padded else 0.0


class CostModel:
    """Learns the cost of batches. Safe to use from several threads.

    Args:
        shares_cores: Whether batches are computed on the cores that the rest of the service runs on. What that takes of
            them looks like `b` there, and is no less with fewer batches, so that none is put together for its sake.
    """

    def __init__(self, *, shares_cores: bool = False) -> None:
        self.cost = Cost()
        self._shares_cores = shares_cores
        self._lock = threading.Lock()
        self._weight = self._squared_weight = self._x = self._y = self._xx = self._xy = self._yy = 0.0
        self._real = self._items = 0.0

    def observe(self, *, items: int, real_tokens: int, padded_tokens: int, duration_s: float) -> None:
        """A batch was run."""
        with self._lock:
            if expected_s := self.cost.of_batch(padded_tokens):
                duration_s = min(duration_s, OUTLIER * expected_s)
            self._weight = self._weight * FORGETTING + 1
            self._squared_weight = self._squared_weight * FORGETTING**2 + 1
            self._x = self._x * FORGETTING + padded_tokens
            self._y = self._y * FORGETTING + duration_s
            self._xx = self._xx * FORGETTING + padded_tokens**2
            self._xy = self._xy * FORGETTING + padded_tokens * duration_s
            self._yy = self._yy * FORGETTING + duration_s**2
            self._real = self._real * FORGETTING + real_tokens
            self._items = self._items * FORGETTING + items
            token_s, batch_s, error_s = self._fit()
            sure_s = 0.0 if self._shares_cores else max(0.0, batch_s - SURE_ERRORS * error_s)
            short_s = SHORT_BATCH_S if self._shares_cores else batch_s / OVERHEAD_SHARE
            self.cost = Cost(
                token_s,
                batch_s,
                padding=self._x / self._real,
                item_tokens=self._real / self._items,
                overhead_tokens=sure_s / token_s,
                short_batch_tokens=max(1, round(short_s / token_s)),
            )

    def _fit(self) -> tuple[float, float, float]:
        """`a`, `b`, and the standard error of `b`."""
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        mean_xx = self._xx / self._weight
        variance = mean_xx - mean_x**2
        if variance > MIN_SPREAD * mean_xx:
            covariance = self._xy / self._weight - mean_x * mean_y
            token_s = covariance / variance
            batch_s = mean_y - token_s * mean_x
            batches = self._weight**2 / self._squared_weight  # So many, all of one weight, would tell as much.
            unexplained = max(0.0, self._yy / self._weight - mean_y**2 - covariance * token_s)
            error_s = math.sqrt(unexplained / (batches - 2) * mean_xx / variance) if batches > 2 else math.inf
            if token_s > 0 and batch_s >= 0:
                return token_s, batch_s, error_s
            if token_s <= 0:  # Larger batches take no longer, as on a device that is far from full.
                return TINY_TOKEN_S, mean_y, error_s
        return max(self._xy / self._xx, TINY_TOKEN_S), 0.0, 0.0
