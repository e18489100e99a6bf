"""Generalised advantage estimation over ragged responses."""

import torch
from torch import Tensor


def compute_gae(
    rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of each sampled token.

    Masked positions are skipped as if they were not there, wherever they stand. After the last sampled token the value
    is 0: a response ends its episode, by eos or by the length limit.

    Args:
        rewards: [B, T] float32; anything where `response_mask` is False.
        values: [B, T] float32, the value of the state in which each token was chosen; anything where masked.
        response_mask: [B, T] bool, True = a sampled token.
        gamma: Discount in [0, 1].
        gae_lambda: In [0, 1]; 0 gives the one-step TD error, 1 the discounted reward-to-go minus the value.

    Returns:
        advantages: [B, T] float32, 0 where masked.
        returns: [B, T] float32, advantages plus values (the value function's targets), 0 where masked.

    Source: GAE, arXiv:1506.02438.
    """
    advantages = torch.zeros_like(rewards)
    next_advantage = rewards.new_zeros(rewards.shape[0])
    next_value = torch.zeros_like(next_advantage)
    for t in range(rewards.shape[1] - 1, -1, -1):
        real = response_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        advantages[:, t] = torch.where(real, advantage, 0.0)
        next_advantage = torch.where(real, advantage, next_advantage)
        next_value = torch.where(real, values[:, t], next_value)
    returns = torch.where(response_mask, advantages + values, 0.0)
    return advantages, returns
