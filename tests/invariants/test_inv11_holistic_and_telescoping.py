"""Invariant 11: a holistic reward is the fine-grained one with one segment; detoxification rewards telescope."""

import itertools

import pytest
import torch

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.token_rewards import end_token_index, kl_penalised_rewards, place_rewards

# "One. Two. Three." as One|.| Two|.| Three|.|<eos>
OFFSETS = [(0, 3), (3, 4), (4, 8), (8, 9), (9, 15), (15, 16), (16, 16)]
LENGTH = len(OFFSETS)
MASK = torch.ones(1, LENGTH, dtype=torch.bool)


def test_one_segment_is_the_holistic_reward() -> None:
    """Against the textbook form of holistic RLHF: 0 but at the end, where the reward is the sequence's score."""
    generator = torch.Generator().manual_seed(0)
    logprobs, ref_logprobs, values = torch.randn(3, 1, LENGTH, generator=generator)
    score, beta = 1.7, 0.2
    placed = place_rewards(LENGTH, [LENGTH - 1], [score]).unsqueeze(0)
    rewards = kl_penalised_rewards(placed, logprobs, ref_logprobs, MASK, beta)
    expected = [-beta * (p - q) for p, q in zip(logprobs[0].tolist(), ref_logprobs[0].tolist(), strict=True)]
    expected[-1] += score
    assert rewards[0].tolist() == pytest.approx(expected, rel=1e-5)
    # Undiscounted and without KL every token's return is the score.
    _, returns = compute_gae(placed, values, MASK, gamma=1.0, gae_lambda=1.0)
    assert returns[0].tolist() == pytest.approx([score] * LENGTH, rel=1e-5)


def test_one_segment_that_spans_the_text_lands_on_its_last_character() -> None:
    assert end_token_index(OFFSETS, 16) == 5


def test_detox_rewards_telescope() -> None:
    """After sentence j the reward is -(toxicity up to j - toxicity up to j - 1)."""
    toxicity = [0.0, 0.35, 0.2, 0.9]  # of nothing, one, two and three sentences
    ends = [end_token_index(OFFSETS, end) for end in (4, 9, 16)]
    assert ends == [1, 3, 5]
    differences = [-(after - before) for before, after in itertools.pairwise(toxicity)]
    placed = place_rewards(LENGTH, ends, differences)
    assert placed.sum().item() == pytest.approx(-0.9)
    # The return of a token is what toxicity is still to be added after it.
    _, returns = compute_gae(placed.unsqueeze(0), torch.zeros(1, LENGTH), MASK, gamma=1.0, gae_lambda=1.0)
    assert returns[0].tolist() == pytest.approx([-0.9, -0.9, -0.55, -0.55, -0.7, -0.7, 0.0], abs=1e-6)
