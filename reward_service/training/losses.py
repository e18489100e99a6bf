"""The two losses of reward models. Pure functions of tensors.

Both are sums. What they are divided by is that of the whole batch, which may be spread over processes and
micro-batches, so the caller divides: the parts then add up to the true mean, however uneven they are.
"""

from torch import Tensor
from torch.nn import functional

from reward_service.training.labels import IGNORED


def span_loss(read: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of segments, the weighted sum over those that count.

    Args:
        read: [S, C] float, each segment's logits as `read_out.read_tokens` gives them.
        labels: [S] int64 classes; `IGNORED` segments count for nothing.
        class_weights: [C] float, what a segment of each class counts; 1 when absent.

    Returns:
        A scalar; 0, with zero gradients, when every segment is ignored.

    Source: arXiv 2306.01693.
    """
    return functional.cross_entropy(read.float(), labels, weight=class_weights, ignore_index=IGNORED, reduction="sum")


def pairwise_loss(scores: Tensor, winners: Tensor, losers: Tensor, weights: Tensor) -> Tensor:
    """`-log sigmoid(r_win - r_lose)`, the weighted sum over pairs.

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
    return -(weights * functional.logsigmoid(margins)).sum()
