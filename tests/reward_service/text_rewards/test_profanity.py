import pytest

from reward_service.text_rewards.callable_reward import RewardInput

pytest.importorskip("profanity_check")


def test_rude_sentences_score_low_and_kind_ones_high() -> None:
    from reward_service.text_rewards.profanity import score

    kind, rude = "Bloom is the fourth album of Beach House.", "You are a fucking idiot."
    first, nothing, second = score(
        [RewardInput("", "", (kind, rude), ()), RewardInput("", "", (), ()), RewardInput("", "", (rude,), ())]
    )
    assert first[0] > 0.9
    assert first[1] < 0.1
    assert nothing == []
    assert second == [first[1]], "a segment's score is its own, whatever stands beside it"


def test_no_text_at_all_is_no_fault() -> None:
    from reward_service.text_rewards.profanity import score

    assert score([RewardInput("", "", (), ())]) == [[]]
