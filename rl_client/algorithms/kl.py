"""Estimators of KL divergence from sampled tokens, and two diagnostics.

Each estimator takes log-probabilities of tokens sampled from the policy and estimates KL(policy || reference).

Source: J. Schulman, "Approximating KL Divergence", http://joschu.net/blog/kl-approx.html.
"""

import torch
from torch import Tensor

from rl_client.algorithms.masking import MIN_STD, masked_var


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The log-ratio: unbiased, of high variance, may be negative.

    Args:
        logprobs: [B, T] float32, of the sampled tokens under the policy that sampled them.
        ref_logprobs: [B, T] float32, under the reference.

    Returns:
        [B, T] float32.
    """
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: biased, of low variance, >= 0.

    Args:
        logprobs: [B, T] float32, of the sampled tokens under the policy that sampled them.
        ref_logprobs: [B, T] float32, under the reference.

    Returns:
        [B, T] float32.
    """
    return 0.5 * (logprobs - ref_logprobs).square()


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """`(r - 1) - log r` with r = reference / policy: unbiased, of low variance, >= 0.

    Args:
        logprobs: [B, T] float32, of the sampled tokens under the policy that sampled them.
        ref_logprobs: [B, T] float32, under the reference.

    Returns:
        [B, T] float32.
    """
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def entropy_from_logits(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy of each next-token distribution.

    Args:
        logits: [B, T, V], any floating dtype; -inf excludes a token.
        temperature: > 0, divides the logits.

    Returns:
        [B, T] float32, in nats, >= 0.
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropy


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """The share of the returns' variance that the values explain: 1 is perfect, 0 no better than a constant.

    Args:
        values: [B, T] float32, predictions.
        returns: [B, T] float32, targets.
        mask: [B, T] bool, True = a sampled token.

    Returns:
        Scalar <= 1; 0 when the returns do not vary, where nothing is to be explained.
    """
    variance = masked_var(returns, mask)
    unexplained = masked_var(returns - values, mask)
    return torch.where(variance > MIN_STD**2, 1.0 - unexplained / variance, 0.0)
