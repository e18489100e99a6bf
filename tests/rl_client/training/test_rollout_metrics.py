import pytest
import torch

from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch
from rl_client.training.rollout_metrics import quantile, response_metrics, score_metrics

MASK = torch.tensor([[True, True, True], [True, False, False]])
ROLLOUT = Rollout(
    prompts=(Prompt("a", "", {}, (1,)), Prompt("b", "", {}, (1,), cut_tokens=3)),
    tokens=TokenBatch(
        torch.ones(2, 1).long(), torch.ones(2, 1).bool(), torch.tensor([0, 1]), torch.ones(2, 3).long(), MASK
    ),
    finished=(False, True),
    texts=("x", ""),
    offsets=(((0, 1), (1, 1), (1, 1)), ((0, 0),)),
)


def test_scores_that_are_missing_are_left_out_not_zero():
    scored = ScoredRollout(
        ROLLOUT,
        torch.zeros(2, 3),
        torch.tensor([False, True]),
        scores={"m": (0.5, None), "n": (None, None)},
        rewards={"m": (2.0, None)},
        latencies_s=(0.3, 0.1, 0.2),
        score_s=0.7,
    )
    assert score_metrics(scored) == {
        "reward/m": 0.5,
        "reward/n": None,
        "reward_shaped/m": 2.0,
        "failed_scores": 1.0,
        "reward_latency_s": 0.2,
        "reward_latency_p99_s": 0.3,
        "score_s": 0.7,
    }


def test_lengths_and_cuts():
    assert response_metrics(ROLLOUT) == {"share_cut_off": 0.5, "length_tokens": 2.0, "cut_prompts": 1.0}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_quantiles_by_hand(q, expected):
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_no_values_have_no_quantile():
    assert quantile([], 0.5) is None
