import pytest
import torch

from rl_client.rollout.penalties import penalties_of
from rl_client.rollout.rewards import place_on_tokens, response_rewards
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch
from rl_client.training.settings_rewards import PenaltySettings

LENGTHS = (5, 2, 3)


@pytest.fixture
def rollout():
    mask = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    tokens = TokenBatch(
        torch.ones(1, 1).long(), torch.ones(1, 1).bool(), torch.zeros(3).long(), torch.ones(3, 5).long(), mask
    )
    offsets = tuple(tuple((i, i + 1) for i in range(length)) for length in LENGTHS)
    return Rollout((Prompt("p", "", {}, (1,)),), tokens, (False, True, False), ("abcde", "ab", "abc"), offsets)


def test_penalties_fall_on_the_last_token_by_hand(rollout):
    settings = PenaltySettings(length=0.25, free_tokens=2, truncation=1.5)
    sources = penalties_of(rollout, (False, False, True), settings)
    assert [(source.name, source.weight) for source in sources] == [
        ("length_penalty", -0.25),
        ("truncation_penalty", -1.5),
    ]
    assert place_on_tokens(sources, LENGTHS, (3, 5)).tolist() == [[0, 0, 0, 0, -0.75 - 1.5], [0] * 5, [0] * 5]
    rewards = response_rewards(sources, (False, False, True))
    assert rewards == {"length_penalty": (-0.75, 0.0, None), "truncation_penalty": (-1.5, 0.0, None)}


def test_what_is_off_is_no_source(rollout):
    assert penalties_of(rollout, (False,) * 3, PenaltySettings()) == ()
    (only,) = penalties_of(rollout, (False,) * 3, PenaltySettings(truncation=1.0))
    assert only.name == "truncation_penalty"
