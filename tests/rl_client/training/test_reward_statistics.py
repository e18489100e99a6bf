import json
import statistics

import pytest
import torch

from rl_client.rollout.rewards import SegmentReward, SourceRewards, place_on_tokens, response_rewards
from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch
from rl_client.training.reward_statistics import RewardStatistics
from rl_client.training.settings_rewards import RewardSettings

REWARDS = (
    RewardSettings(model="z", weight=2.0, normalization="zscore"),
    RewardSettings(model="s", weight=0.5, normalization="scale"),
    RewardSettings(model="plain"),
)
WEIGHTS = {"z": 2.0, "s": 0.5, "plain": 1.0}


def scored(rows: list[list[float]], failed: tuple[bool, ...] | None = None) -> ScoredRollout:
    """Each row is a response, with one token and one segment a number; all sources say the same."""
    failed = failed or (False,) * len(rows)
    width = max(len(row) for row in rows)
    mask = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    tokens = TokenBatch(
        torch.ones(1, 1).long(), torch.ones(1, 1).bool(), torch.zeros(len(rows)).long(),
        torch.ones(len(rows), width).long(), mask,
    )  # fmt: skip
    offsets = tuple(tuple((i, i + 1) for i in range(len(row))) for row in rows)
    texts = tuple("x" * len(row) for row in rows)
    rollout = Rollout((Prompt("p", "", {}, (1,)),), tokens, (True,) * len(rows), texts, offsets)
    segments = tuple(
        () if is_failed else tuple(SegmentReward(i, i, i + 1, v, None, v) for i, v in enumerate(row))
        for row, is_failed in zip(rows, failed, strict=True)
    )
    sources = tuple(SourceRewards(name, weight, segments) for name, weight in WEIGHTS.items())
    placed = place_on_tokens(sources, [len(row) for row in rows], (len(rows), width))
    rewards = response_rewards(sources, failed)
    return ScoredRollout(rollout, placed, torch.tensor(failed), {}, rewards, sources=sources)


def test_two_rollouts_against_plain_statistics_of_all_segments_so_far():
    running = RewardStatistics(REWARDS)
    first, second = [[1.0, 4.0], [2.5]], [[-3.0], [0.5, 0.25]]
    running.normalize(scored(first))
    got = running.normalize(scored(second))
    everything = [1.0, 4.0, 2.5, -3.0, 0.5, 0.25]
    mean, std = statistics.fmean(everything), statistics.pstdev(everything)
    for row, values in enumerate(second):
        for token, value in enumerate(values):
            expected = 2.0 * (value - mean) / std + 0.5 * value / std + value
            assert float(got.token_rewards[row, token]) == pytest.approx(expected, rel=1e-6)
    assert got.rewards["z"][1] == pytest.approx(sum(2.0 * (value - mean) / std for value in second[1]))
    assert got.rewards["plain"] == (-3.0, 0.75)


def test_failed_responses_count_nowhere():
    running, other = RewardStatistics(REWARDS), RewardStatistics(REWARDS)
    running.normalize(scored([[1.0, 2.0], [1e9]], (False, True)))
    other.normalize(scored([[1.0, 2.0]]))
    assert running.pack() == other.pack()


def test_scores_that_do_not_vary_are_not_blown_up():
    got = RewardStatistics(REWARDS).normalize(scored([[3.0], [3.0]]))
    assert got.rewards == {"z": (0.0, 0.0), "s": (1.5, 1.5), "plain": (3.0, 3.0)}


def test_without_normalisation_nothing_changes():
    plain = scored([[1.0]])
    assert RewardStatistics([RewardSettings(model="plain")]).normalize(plain) is plain


def test_statistics_go_on_to_the_bit():
    running = RewardStatistics(REWARDS)
    running.normalize(scored([[0.1, 0.2], [0.3]]))
    other = RewardStatistics(REWARDS)
    other.unpack(json.loads(json.dumps(running.pack())))
    batch = [[0.7], [-0.1, 0.9]]
    assert torch.equal(running.normalize(scored(batch)).token_rewards, other.normalize(scored(batch)).token_rewards)
    assert running.pack() == other.pack()
