"""Tokens' logits to segments' logits, with gradients: what `core.align` reads, in torch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
    positions = np.concatenate([read.positions for read in reads])
    at_rows = np.repeat(np.array(rows, dtype=np.int64), [len(read.positions) for read in reads])
    own = [(read.widths, read.divisors) for read in reads if read.widths is not None and read.divisors is not None]
    if not own:
        return logits[_on(logits, at_rows), _on(logits, positions)].float()
    widths, divisors = (np.concatenate(part) for part in zip(*own, strict=True))
    segments = np.repeat(np.arange(len(widths)), widths)  # whose each token is
    firsts = np.cumsum(widths) - widths
    columns = np.arange(len(segments)) + (positions - firsts)[segments]
    tokens = logits[_on(logits, at_rows[segments]), _on(logits, columns)].float()
    sums = tokens.new_zeros(len(widths), tokens.shape[-1]).index_add(0, _on(logits, segments), tokens)
    return sums / _on(logits, divisors)[:, None]


def _on(logits: Tensor, numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).to(logits.device)
