"""In which order examples come, and how fast they teach. Pure."""

import math
from collections.abc import Sequence

import numpy as np

LENGTH_POOL_BATCHES = 32
"""Batches of like lengths are cut from a random pool of this many batches."""


def length_grouped_batches(lengths: Sequence[int], batch_size: int, order: np.random.Generator) -> list[list[int]]:
    """Every index once, in random batches of like lengths, so that little is computed on padding."""
    shuffled = order.permutation(len(lengths))
    pool = batch_size * LENGTH_POOL_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), pool):
        by_length = sorted(shuffled[start : start + pool].tolist(), key=lengths.__getitem__)
        batches.extend(by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size))
    return [batches[index] for index in order.permutation(len(batches))]


def batches_an_epoch(examples: int, batch_size: int) -> int:
    """How many batches `length_grouped_batches` makes."""
    return math.ceil(examples / batch_size)


def learning_rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate: a straight line up over the warm-up, then down to 0 after the last step."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))
