"""Invariant 16, for the update: a response without a score moves nothing, where a score of 0 would."""

import pytest
import torch

from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch
from rl_client.training.config import PpoSettings
from rl_client.training.experience import Estimates, make_train_batch

PPO = PpoSettings(steps=1, prompts_per_step=1, minibatch_size=1, kl_coefficient=0.1)
LENGTHS = (4, 6, 2, 3)
FAILED = (False, True, False, True)


def figures(rows: tuple[int, ...], failed: tuple[bool, ...]) -> tuple[dict[str, torch.Tensor], dict]:
    """Of these responses alone: what an update reads of the kept ones, and the metrics."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(len(LENGTHS), 6, generator=generator) for _ in range(5)]
    mask = (torch.arange(6) < torch.tensor(LENGTHS)[:, None])[list(rows)]
    rewards, *estimates = (torch.where(mask, column[list(rows)], 0.0) for column in columns)
    is_failed = torch.tensor([failed[row] for row in rows])
    tokens = TokenBatch(
        torch.ones(1, 1).long(), torch.ones(1, 1).bool(), torch.zeros(len(rows)).long(), mask.long() * 7, mask
    )
    rollout = Rollout((Prompt("p", "", {}, (1,)),), tokens, (True,) * len(rows), ("x",) * len(rows), ((),) * len(rows))
    scored = ScoredRollout(rollout, torch.where(is_failed[:, None], 0.0, rewards), is_failed, {}, {})
    batch, metrics = make_train_batch(scored, tokens, Estimates(*estimates), PPO)
    names = ("old_logprobs", "old_values", "advantages", "returns")
    width = max(LENGTHS[row] for row in rows if not failed[row])
    return {name: getattr(batch, name)[:, :width] for name in names}, metrics


def test_it_is_as_if_failed_responses_had_never_been_sampled() -> None:
    batch, metrics = figures((0, 1, 2, 3), FAILED)
    alone, alone_metrics = figures((0, 2), FAILED)
    for name, tensor in alone.items():
        torch.testing.assert_close(batch[name], tensor)
    assert metrics == pytest.approx(alone_metrics, rel=1e-5)
    zeroed, _ = figures((0, 1, 2, 3), (False,) * 4)
    assert len(zeroed["returns"]) == 4
