"""Invariant 7: GAE equals the O(T^2) sums of its definition, with dense rewards and ragged masks."""

import pytest
import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae

LENGTHS = (7, 4, 1, 0, 6)
WIDTH = 7


def ragged(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(len(LENGTHS), WIDTH, generator=generator)
    values = torch.randn(len(LENGTHS), WIDTH, generator=generator)
    mask = torch.arange(WIDTH) < torch.tensor(LENGTHS).unsqueeze(1)
    return rewards, values, mask


def brute_force(rewards: list[float], values: list[float], gamma: float, gae_lambda: float) -> list[float]:
    """A_t = sum_l (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t, V after the end 0."""
    after = [*values[1:], 0.0]
    advantages = []
    for t in range(len(rewards)):
        total = 0.0
        for later in range(t, len(rewards)):
            delta = rewards[later] + gamma * after[later] - values[later]
            total += (gamma * gae_lambda) ** (later - t) * delta
        advantages.append(total)
    return advantages


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.7), (0.5, 1.0), (1.0, 0.0), (0.0, 0.9)])
def test_brute_force(gamma: float, gae_lambda: float, seed: int) -> None:
    rewards, values, mask = ragged(seed)
    advantages, returns = compute_gae(rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda)
    for row, length in enumerate(LENGTHS):
        expected = brute_force(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, gae_lambda)
        targets = [a + v for a, v in zip(expected, values[row, :length].tolist(), strict=True)]
        assert advantages[row, :length].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert returns[row, :length].tolist() == pytest.approx(targets, rel=1e-5, abs=1e-5)
        assert advantages[row, length:].tolist() == returns[row, length:].tolist() == [0.0] * (WIDTH - length)


def test_lambda_one_gamma_one_is_reward_to_go_minus_value() -> None:
    rewards, values, mask = ragged(seed=9)
    advantages, returns = compute_gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            to_go = sum(rewards[row, t:length].tolist())
            assert returns[row, t].item() == pytest.approx(to_go, abs=1e-5)
            assert advantages[row, t].item() == pytest.approx(to_go - values[row, t].item(), abs=1e-5)


def test_lambda_zero_is_the_td_error() -> None:
    rewards, values, mask = ragged(seed=10)
    advantages, _ = compute_gae(rewards, values, mask, gamma=0.9, gae_lambda=0.0)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            following = values[row, t + 1].item() if t + 1 < length else 0.0
            td_error = rewards[row, t].item() + 0.9 * following - values[row, t].item()
            assert advantages[row, t].item() == pytest.approx(td_error, abs=1e-5)
