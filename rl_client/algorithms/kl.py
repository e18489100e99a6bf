"""Estimators of KL divergence from sampled tokens, the control of its price, and diagnostics.

Each estimator takes log-probabilities of tokens sampled from the policy and estimates KL(policy || reference).

Source: J. Schulman, "Approximating KL Divergence", http://joschu.net/blog/kl-approx.html.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from rl_client.algorithms.masking import MIN_STD, masked_var

KlEstimate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`f(logprobs, ref_logprobs)` of [B, T] gives [B, T]."""

MAX_KL_ERROR = 0.2
"""How far from its target, as a share of it, a KL counts in the control of the coefficient."""


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


def exact_kl(logits: Tensor, ref_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(policy || reference) of whole next-token distributions: no sampling of tokens, so no noise from it.

    Args:
        logits: [N, V], any floating dtype, finite; the policy's.
        ref_logits: [N, V], the reference's.
        temperature: > 0, divides both.

    Returns:
        [N] float32, in nats, >= 0 up to rounding.
    """
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    ref_logprobs = torch.log_softmax(ref_logits.float() / temperature, dim=-1)
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(dim=-1)


def adapted_kl_coefficient(coefficient: float, kl: float, *, target: float, gain: float) -> float:
    """The coefficient of the next step: larger after a KL above the target, smaller after one below.

    `coefficient * (1 + gain * clip(kl / target - 1, -0.2, 0.2))`: one step changes it by at most a fifth of `gain`.

    Args:
        coefficient: Of this step, >= 0.
        kl: This step's KL, in the target's unit; finite, may be negative where it is an estimate.
        target: > 0.
        gain: In [0, 1]; 0.1 in the source.

    Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences", arXiv:1909.08593.
    """
    error = min(max(kl / target - 1.0, -MAX_KL_ERROR), MAX_KL_ERROR)
    return coefficient * (1.0 + gain * error)


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
