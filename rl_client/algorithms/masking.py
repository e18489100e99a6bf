"""Mean, variance and whitening over the real tokens of a padded batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_STD = 1e-6
"""Whitening divides by no less than this; smaller spreads are float32 rounding, not signal."""


@dataclass(frozen=True, slots=True)
class MaskedStatistics:
    """Count, mean and sum of squared deviations of real tokens.

    Statistics of parts merge into those of the whole, so that N processes whiten as one would.
    """

    count: float
    mean: float
    squared_deviations: float

    @property
    def var(self) -> float:
        """Population variance (divisor `count`); 0 for no tokens."""
        return self.squared_deviations / self.count if self.count else 0.0

    @staticmethod
    def merge(parts: Iterable["MaskedStatistics"]) -> "MaskedStatistics":
        """The statistics of all parts together.

        Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances".
        """
        count = mean = squared = 0.0
        for part in parts:
            if not part.count:
                continue
            total = count + part.count
            delta = part.mean - mean
            squared += part.squared_deviations + delta * delta * count * part.count / total
            mean += delta * part.count / total
            count = total
        return MaskedStatistics(count, mean, squared)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the real tokens, over everything or along one dimension.

    Args:
        x: Any shape, floating point; anything where `mask` is False.
        mask: Bool, the shape of `x`, True = a real token.
        dim: The dimension to reduce; all when None.

    Returns:
        The mean, with `dim` removed; 0 where there is no real token.
    """
    kept = torch.where(mask, x, 0.0)
    if dim is None:
        return kept.sum() / mask.sum().clamp_min(1)
    return kept.sum(dim) / mask.sum(dim).clamp_min(1)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance (divisor N, not N - 1) of the real tokens.

    Args:
        x: Any shape, floating point; anything where `mask` is False.
        mask: Bool, the shape of `x`, True = a real token.

    Returns:
        A scalar, 0 when there is no real token.
    """
    # Masked before the square, whose gradient at a NaN pad would be NaN.
    deviations = torch.where(mask, x - masked_mean(x, mask), 0.0)
    return masked_mean(deviations.square(), mask)


def masked_statistics(x: Tensor, mask: Tensor) -> MaskedStatistics:
    """Statistics of the real tokens in float64, to be merged over processes.

    Args:
        x: Any shape, floating point; anything where `mask` is False.
        mask: Bool, the shape of `x`, True = a real token.
    """
    values = x.detach()[mask].double()
    if not values.numel():
        return MaskedStatistics(0.0, 0.0, 0.0)
    mean = values.mean()
    return MaskedStatistics(float(values.numel()), float(mean), float((values - mean).square().sum()))


def masked_whiten(
    x: Tensor, mask: Tensor, shift_mean: bool = True, statistics: MaskedStatistics | None = None
) -> Tensor:
    """Scale the real tokens to standard deviation 1 and, by default, shift them to mean 0.

    Args:
        x: Any shape, floating point; anything where `mask` is False.
        mask: Bool, the shape of `x`, True = a real token.
        shift_mean: Whether the mean becomes 0; else it stays what it was (as for rewards, whose sign has a meaning).
        statistics: Statistics to use in place of those of `x`: merged ones when `x` is one process's part of a batch.

    Returns:
        The shape and dtype of `x`; exactly 0 where `mask` is False. Tokens that are all alike become 0 (or their mean).
    """
    stats = statistics if statistics is not None else masked_statistics(x, mask)
    std = max(stats.var**0.5, MIN_STD)
    whitened = (x - stats.mean) / std
    if not shift_mean:
        whitened = whitened + stats.mean
    return torch.where(mask, whitened, 0.0)
