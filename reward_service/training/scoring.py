"""Scores of many inputs, through the service's own collate, backend and align."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reward_service.core.align import align
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, Head, ItemScore
from reward_service.errors import ModelFailedError

MAX_BATCH_TOKENS = 8192
"""Padded tokens of one batch."""


def score_all(
    backend: Backend, heads: Sequence[Head], encoded: Sequence[Encoded], pad_id: int
) -> list[list[ItemScore]]:
    """Score every input, in batches of like lengths.

    Returns:
        For each head one score for each input, in order.

    Raises:
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    scores: list[list[ItemScore | None]] = [[None] * len(encoded) for _ in heads]
    for indices in _batches([item.length_tokens for item in encoded]):
        batch = [encoded[index] for index in indices]
        for index, results in zip(indices, align(heads, batch, backend.infer(collate(batch, pad_id))), strict=True):
            for of_head, score in zip(scores, results, strict=True):
                if isinstance(score, ModelFailedError):
                    raise score
                of_head[index] = score
    return [[score for score in of_head if score is not None] for of_head in scores]


def scalars(scores: Sequence[ItemScore]) -> NDArray[np.float64]:
    """The sequence scores, [N]."""
    return np.array([score.sequence_score for score in scores], dtype=np.float64)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in order of length, as many at a time as `MAX_BATCH_TOKENS` holds padded."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
