"""The two losses of reward models. Pure functions of tensors."""

import torch
from torch import Tensor
from torch.nn import functional

from reward_service.training.labels import IGNORED


def span_loss(logits: Tensor, rows: Tensor, columns: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy at the separators, the mean over segments that count.

    Args:
        logits: [B, T, C] float.
        rows: [S] int64, which item of the batch each segment belongs to.
        columns: [S] int64, its separator's position.
        labels: [S] int64 classes; `IGNORED` segments count for nothing.

    Returns:
        A scalar; 0, with zero gradients, when every segment is ignored.

    Source: arXiv 2306.01693.
    """
    read = logits[rows, columns].float()
    total = functional.cross_entropy(read, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def pairwise_loss(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor) -> Tensor:
    """`-log sigmoid(r_win - r_lose)`, the weighted mean over pairs.

    With 1 / (number of the example's pairs) as its weight every example counts the same, and its texts go through
    the model once for all its pairs.

    Args:
        scores: [N] float, the scalar of each text.
        winners: [P] int64 indices into `scores`.
        losers: [P] int64 indices into `scores`.
        weights: [P] float, at least 0.

    Returns:
        A scalar; 0, with zero gradients, when there is no pair.

    Source: the loss, arXiv 2306.01693; all pairs of a prompt at once, InstructGPT, arXiv 2203.02155,
        section 3.5.
    """
    margins = scores[winners].float() - scores[losers].float()
    total = -(weights * functional.logsigmoid(margins)).sum()
    return total / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
