"""Invariant 12: token rewards are linear in the weights; weight 0 equals leaving the model out."""

import pytest
import torch
from torch import Tensor

from rl_client.algorithms.advantages import compute_gae
from rl_client.algorithms.token_rewards import kl_penalised_rewards, place_rewards
from rl_client.rollout.rewards import SegmentReward, SourceRewards, place_on_tokens

LENGTH = 8
SCORES = {
    "relevance": ([2, 5, 7], [0.9, -0.4, 0.3]),
    "factuality": ([5, 7], [0.8, -1.0]),
    "completeness": ([7], [1.7]),
}
WEIGHTS = {"relevance": 0.3, "factuality": 0.5, "completeness": 0.2}


def token_rewards(weights: dict[str, float]) -> Tensor:
    ends, rewards = [], []
    for model, weight in weights.items():
        model_ends, scores = SCORES[model]
        ends += model_ends
        rewards += [weight * score for score in scores]
    return place_rewards(LENGTH, ends, rewards)


def test_the_weighted_sum_of_each_model_alone() -> None:
    alone = [weight * token_rewards({model: 1.0}) for model, weight in WEIGHTS.items()]
    torch.testing.assert_close(token_rewards(WEIGHTS), torch.stack(alone).sum(0))


def test_by_hand() -> None:
    expected = [0.0] * LENGTH
    expected[2] = 0.3 * 0.9
    expected[5] = 0.3 * -0.4 + 0.5 * 0.8
    expected[7] = 0.3 * 0.3 + 0.5 * -1.0 + 0.2 * 1.7
    assert token_rewards(WEIGHTS).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("left_out", WEIGHTS)
def test_weight_zero_equals_leaving_the_model_out(left_out: str) -> None:
    zeroed = token_rewards({**WEIGHTS, left_out: 0.0})
    without = token_rewards({model: weight for model, weight in WEIGHTS.items() if model != left_out})
    assert torch.equal(zeroed, without)


def test_the_sources_of_a_rollout_add_up_by_their_weights() -> None:
    """The same figures as above, on the way that training takes."""
    sources = [
        SourceRewards(
            model,
            weight,
            (tuple(SegmentReward(e, 0, 1, s, None, s) for e, s in zip(*SCORES[model], strict=True)),),
        )
        for model, weight in WEIGHTS.items()
    ]
    torch.testing.assert_close(place_on_tokens(sources, [LENGTH], (1, LENGTH))[0], token_rewards(WEIGHTS))


def test_doubled_weights_double_the_returns_where_nothing_else_pays() -> None:
    mask = torch.ones(1, LENGTH, dtype=torch.bool)
    zeros = torch.zeros(1, LENGTH)

    def returns(factor: float) -> Tensor:
        placed = token_rewards({model: factor * weight for model, weight in WEIGHTS.items()}).unsqueeze(0)
        rewards = kl_penalised_rewards(placed, zeros, zeros, mask, 0.2)
        return compute_gae(rewards, zeros, mask, gamma=1.0, gae_lambda=0.95)[1]

    torch.testing.assert_close(returns(2.0), 2.0 * returns(1.0))
