"""Tokens' logits to segments' logits, with gradients: what `core.align` reads, in torch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reward_service.core.align import TokenPlaces
from reward_service.domain import Read


def read_tokens(logits: Tensor, rows: Sequence[int], reads: Sequence[Read]) -> Tensor:
    """The logits of every segment: one token's, or the mean or sum over its own tokens.

    Args:
        logits: [B, T, C] float.
        rows: N places in the batch, one for each of `reads`.
        reads: Where one head's segments are read, S of them in all.

    Returns:
        [S, C] float32, in order.
    """
    places = TokenPlaces.of(rows, reads)
    tokens = logits[_on(logits, places.rows), _on(logits, places.columns)].float()
    if places.widths is None or places.divisors is None:
        return tokens
    segments = _on(logits, np.repeat(np.arange(len(places.widths)), places.widths))
    sums = tokens.new_zeros(len(places.widths), tokens.shape[-1]).index_add(0, segments, tokens)
    return sums / _on(logits, places.divisors)[:, None]


def _on(logits: Tensor, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).to(logits.device)
