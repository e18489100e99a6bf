import pytest

from rl_client.errors import TooManyFailedScoresError
from rl_client.inference.choose import choose_best


@pytest.mark.parametrize(
    ("rewards", "best"),
    [([1.0, 3.0, 2.0], 1), ([-5.0, None, -9.0], 0), ([None, -1.0], 1), ([2.0, 2.0], 0), ([None, 0.0, -0.1], 1)],
)
def test_the_largest_reward_wins_and_a_missing_one_never(rewards, best):
    assert choose_best(rewards, "q1") == best


def test_no_score_at_all_is_an_error_that_names_the_prompt():
    with pytest.raises(TooManyFailedScoresError, match="2 candidates for prompt q1"):
        choose_best([None, None], "q1")
