"""PPO's clipped losses.

Each is a sum over the real tokens divided by `normalizer`, a number of the caller's: the real tokens of the whole
mini-batch, over all processes. Losses, fractions and gradients of micro-batches then add up to those of the mini-batch.

Source: PPO, arXiv:1707.06347.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_client.algorithms.kl import kl_k3


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The policy's loss and what to log of it.

    Attributes:
        loss: Scalar with a gradient.
        clip_fraction: Scalar in [0, 1] at full normalizer: tokens whose ratio lies outside the clip range.
        approx_kl: Scalar >= 0: k3 estimate of KL(old policy || policy); adds up over micro-batches as the loss does.
        ratio_mean: Scalar: mean ratio at full normalizer; adds up over micro-batches as the loss does.
        ratio_max: Scalar: the largest ratio of a real token, 0 if there is none. Take the maximum over micro-batches.
    """

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor
    ratio_mean: Tensor
    ratio_max: Tensor


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """The value function's loss and what to log of it.

    Attributes:
        loss: Scalar with a gradient.
        clip_fraction: Scalar in [0, 1] at full normalizer: tokens at which the clipped error is the larger one.
    """

    loss: Tensor
    clip_fraction: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    normalizer: float,
) -> PolicyLoss:
    """The clipped surrogate objective, negated.

    Args:
        logprobs: [B, T] float32 with gradient, of the sampled tokens under the policy in training.
        old_logprobs: [B, T] float32, under the policy that sampled them.
        advantages: [B, T] float32.
        response_mask: [B, T] bool, True = a sampled token; the other tensors may hold anything where it is False.
        clip_range: epsilon > 0; ratios are clipped to [1 - epsilon, 1 + epsilon].
        normalizer: Real tokens of the whole mini-batch, > 0.

    Source: PPO, arXiv:1707.06347, the clipped surrogate objective L^CLIP.
    """
    # Masked before exp: what stands at a pad can then give neither inf nor a NaN gradient.
    log_ratio = torch.where(response_mask, logprobs - old_logprobs, 0.0)
    advantages = torch.where(response_mask, advantages, 0.0)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    with torch.no_grad():
        outside = response_mask & ((ratio - 1.0).abs() > clip_range)
        # The tokens were sampled by the old policy, so that is the one the estimator takes its samples from.
        approx_kl = torch.where(response_mask, kl_k3(torch.zeros_like(log_ratio), log_ratio), 0.0)
        real_ratio = torch.where(response_mask, ratio, 0.0)
    return PolicyLoss(
        loss=losses.sum() / normalizer,
        clip_fraction=outside.sum() / normalizer,
        approx_kl=approx_kl.sum() / normalizer,
        ratio_mean=real_ratio.sum() / normalizer,
        ratio_max=real_ratio.max(),
    )


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    *,
    clip_range: float,
    normalizer: float,
) -> ValueLoss:
    """Half the squared error, or that of the value clipped around its old one if it is larger.

    Args:
        values: [B, T] float32 with gradient, of the value function in training.
        old_values: [B, T] float32, at the time of sampling.
        returns: [B, T] float32, the targets.
        response_mask: [B, T] bool, True = a sampled token; the other tensors may hold anything where it is False.
        clip_range: > 0; values are clipped to within this of the old ones.
        normalizer: Real tokens of the whole mini-batch, > 0.

    Source: the value clipping of OpenAI Baselines' PPO2, which arXiv 2306.01693 uses.
    """
    values, old_values, returns = (torch.where(response_mask, x, 0.0) for x in (values, old_values, returns))
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    errors = (values - returns).square()
    clipped_errors = (clipped - returns).square()
    with torch.no_grad():
        outside = response_mask & (clipped_errors > errors)
    return ValueLoss(
        loss=0.5 * torch.maximum(errors, clipped_errors).sum() / normalizer,
        clip_fraction=outside.sum() / normalizer,
    )
