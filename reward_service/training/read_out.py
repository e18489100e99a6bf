"""Tokens' logits to segments' logits, with gradients: what `core.align` reads, in torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reward_service.domain import Read


@dataclass(frozen=True, slots=True)
class _TokenPlaces:
    """Which of a batch's tokens the segments are read from.

    Attributes:
        rows: [N] int64 in the batch.
        columns: [N] int64 in the input.
        widths: [S] int64, how many of the N tokens are each segment's, in order; one each when absent.
        divisors: [S] int64, what the sums over them are divided by. There where widths are.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    widths: NDArray[np.int64] | None = None
    divisors: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: Sequence[int], reads: Sequence[Read]) -> "_TokenPlaces":
        """Put together what one head reads of several inputs.

        Args:
            rows: Places in the batch, one for each of `reads`.
            reads: Where one head's segments are read, S of them in all.
        """
        positions = np.concatenate([read.positions for read in reads])
        at_rows = np.repeat(np.array(rows, dtype=np.int64), [len(read.positions) for read in reads])
        own = [(read.widths, read.divisors) for read in reads if read.widths is not None and read.divisors is not None]
        if not own:
            return cls(at_rows, positions)
        widths, divisors = (np.concatenate(part) for part in zip(*own, strict=True))
        firsts = np.cumsum(widths) - widths
        columns = np.arange(int(widths.sum())) + np.repeat(positions - firsts, widths)
        return cls(np.repeat(at_rows, widths), columns, widths, divisors)


def read_tokens(logits: Tensor, rows: Sequence[int], reads: Sequence[Read]) -> Tensor:
    """The logits of every segment: one token's, or the mean or sum over its own tokens.

    Args:
        logits: [B, T, C] float.
        rows: N places in the batch, one for each of `reads`.
        reads: Where one head's segments are read, S of them in all.

    Returns:
        [S, C] float32, in order.
    """
    places = _TokenPlaces.of(rows, reads)
    tokens = logits[_on(logits, places.rows), _on(logits, places.columns)].float()
    if places.widths is None or places.divisors is None:
        return tokens
    segments = _on(logits, np.repeat(np.arange(len(places.widths)), places.widths))
    sums = tokens.new_zeros(len(places.widths), tokens.shape[-1]).index_add(0, segments, tokens)
    return sums / _on(logits, places.divisors)[:, None]


def _on(logits: Tensor, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).to(logits.device)
