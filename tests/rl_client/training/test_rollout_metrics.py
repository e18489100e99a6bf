import pytest
import torch

from rl_client.rollout.rewards import SegmentReward, SourceRewards
from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch
from rl_client.training.rollout_metrics import (
    duplicate_share,
    quantile,
    response_metrics,
    reward_per_segment,
    score_metrics,
)

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
        "reward_per_segment": 0.0,
        "failed_scores": 1.0,
        "reward_latency_s": 0.2,
        "reward_latency_p99_s": 0.3,
        "score_s": 0.7,
    }


def test_lengths_and_cuts():
    assert response_metrics(ROLLOUT) == {
        "share_cut_off": 0.5,
        "length_tokens": 2.0,
        "length_tokens_min": 1.0,
        "length_tokens_max": 3.0,
        "duplicate_share": 0.0,
        "cut_prompts": 1.0,
    }


def test_responses_alike_to_one_prompt_are_duplicates():
    """Three samples each of two prompts: `x` twice, and `y` once for each of the two."""
    tokens = TokenBatch(
        torch.ones(2, 1).long(), torch.ones(2, 1).bool(), torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.ones(6, 1).long(), torch.ones(6, 1).bool(),
    )  # fmt: skip
    rollout = Rollout(ROLLOUT.prompts, tokens, (True,) * 6, ("x", "y", "x", "y", "z", ""), (((0, 1),),) * 6)
    assert duplicate_share(rollout) == pytest.approx(2 / 6)


def source(name, weight, rows) -> SourceRewards:
    segments = tuple(tuple(SegmentReward(0, 0, 1, v, None, v) for v in row) for row in rows)
    return SourceRewards(name, weight, segments, shift=5.0, scale=2.0)


def test_the_components_are_unweighted_and_the_quality_takes_means_of_segments():
    sources = (source("m", 2.0, [[1.0, 0.0, 0.5], []]), source("p", -1.0, [[7.0], []]))
    scored = ScoredRollout(
        ROLLOUT, torch.zeros(2, 3), torch.tensor([False, True]), {"m": (0.5, None)}, {}, sources=sources
    )
    metrics = score_metrics(scored)
    assert (metrics["component/m"], metrics["component/p"]) == (1.5, 7.0)
    assert metrics["reward_per_segment"] == 2.0 * 0.5  # the penalty is no quality


def test_a_longer_response_of_the_same_segments_is_no_better():
    short, long = (
        ScoredRollout(
            ROLLOUT, torch.zeros(2, 3), torch.tensor([False, False]), {"m": (0.5, 0.5)}, {},
            sources=(source("m", 2.0, [[0.5] * n, [1.0] * n]),),
        )
        for n in (1, 9)
    )  # fmt: skip
    assert reward_per_segment(short) == reward_per_segment(long) == 1.5


def test_the_quality_is_undefined_where_a_model_scored_nothing():
    scored = ScoredRollout(
        ROLLOUT, torch.zeros(2, 3), torch.tensor([True, True]), {"m": (None, None)}, {},
        sources=(source("m", 1.0, [[], []]),),
    )  # fmt: skip
    assert reward_per_segment(scored) is None
    assert score_metrics(scored)["component/m"] is None


@pytest.mark.parametrize(("q", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_quantiles_by_hand(q, expected):
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_no_values_have_no_quantile():
    assert quantile([], 0.5) is None
