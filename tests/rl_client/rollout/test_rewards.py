import pytest

from rl_client.rollout.rewards import SegmentReward, SourceRewards, place_on_tokens, response_rewards


def segment(token: int, shaped: float) -> SegmentReward:
    return SegmentReward(token, 0, 1, 99.0, None, shaped)


def sources() -> tuple[SourceRewards, SourceRewards]:
    """Two responses of 3 tokens and 1: the second source is normalised to (shaped - 1) / 4."""
    one = SourceRewards("one", 2.0, ((segment(0, 0.5), segment(2, -1.0)), (segment(0, 3.0),)))
    other = SourceRewards("other", -1.0, ((segment(2, 3.0),), ()), shift=1.0, scale=4.0)
    return one, other


def test_rewards_by_hand():
    one, other = sources()
    assert one.reward(segment(0, 0.5)) == 1.0
    assert other.reward(segment(2, 3.0)) == -0.5


def test_what_meets_on_one_token_adds_up():
    placed = place_on_tokens(sources(), (3, 1), (2, 4))
    assert placed.tolist() == [[1.0, 0.0, -2.5, 0.0], [6.0, 0.0, 0.0, 0.0]]


def test_sums_of_responses_and_none_where_one_failed():
    rewards = response_rewards(sources(), (False, True))
    assert rewards == {"one": (pytest.approx(-1.0), None), "other": (-0.5, None)}
