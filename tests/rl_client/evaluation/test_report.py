import pytest
import torch

from rl_client.evaluation.report import ResponseTotals
from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch


def rollout(lengths: tuple[int, ...], finished: tuple[bool, ...], cut: int = 0) -> Rollout:
    n = len(lengths)
    tokens = TokenBatch(
        torch.ones(n, 1).long(),
        torch.ones(n, 1).bool(),
        torch.arange(n),
        torch.ones(n, 9).long(),
        torch.ones(n, 9).bool(),
    )
    prompts = tuple(Prompt(str(i), "", {}, (1,), cut_tokens=cut) for i in range(n))
    return Rollout(prompts, tokens, finished, ("",) * n, tuple(((0, 0),) * length for length in lengths))


def scored(of: Rollout, scores, rewards) -> ScoredRollout:
    n = len(of.texts)
    failed = torch.tensor([rewards[i] is None for i in range(n)])
    return ScoredRollout(of, torch.zeros(n, 9), failed, {"m": scores}, {"m": rewards})


def test_every_response_counts_the_same_whatever_its_batch():
    totals = ResponseTotals()
    for batch, scores, rewards in (
        (rollout((2, 4, 6), (True, True, False)), (0.0, 0.5, None), (1.0, None, 3.0)),
        (rollout((8,), (False,), cut=2), (1.0,), (5.0,)),
    ):
        totals.add_responses(batch)
        totals.add_scores(scored(batch, scores, rewards))
    assert totals.metrics() == {
        "n_prompts": 4,
        "n": 4,
        "length_tokens": 5.0,
        "share_cut_off": 0.5,
        "cut_prompts": 1,
        "failed_scores": 1,
        "reward/m": 0.5,
        "reward_shaped/m": 3.0,
        "return": 3.0,
    }


def test_a_mean_of_nothing_is_none():
    totals = ResponseTotals()
    batch = rollout((1,), (True,))
    totals.add_responses(batch)
    totals.add_scores(scored(batch, (None,), (None,)))
    metrics = totals.metrics()
    assert metrics["reward/m"] is None
    assert "return" not in metrics
    assert metrics["length_tokens"] == pytest.approx(1.0)
