import math

import pytest
import torch

from rl_client.algorithms.kl import KlEstimate, kl_k1, kl_k2, kl_k3
from rl_client.algorithms.token_rewards import AlignmentError, end_token_index, kl_penalised_rewards, place_rewards

# "Hi there. Bye" sampled as: Hi| there|.| Bye|<eos>
OFFSETS = [(0, 2), (2, 8), (8, 9), (9, 13), (13, 13)]


@pytest.mark.parametrize(
    ("span_end", "token"),
    [(1, 0), (2, 0), (3, 1), (8, 1), (9, 2), (12, 3), (13, 3)],
)
def test_the_end_token_holds_the_last_character(span_end: int, token: int) -> None:
    assert end_token_index(OFFSETS, span_end) == token


def test_a_token_that_reaches_past_the_segment_holds_its_end() -> None:
    # "Yes." + " No": the one token ". " ends the first segment (code points 0..3) and reaches past it.
    assert end_token_index([(0, 3), (3, 5), (5, 7)], 4) == 1


@pytest.mark.parametrize(
    "offsets",
    [
        [(0, 2), (2, 2), (2, 2), (2, 3), (3, 3)],  # only the byte that completes the emoji has a width
        [(0, 2), (2, 3), (2, 3), (2, 3), (3, 3)],  # each of its bytes has the whole width
    ],
)
def test_of_an_emoji_of_several_tokens_the_last_one_holds_it(offsets: list[tuple[int, int]]) -> None:
    assert end_token_index(offsets, 3) == 3


def test_white_space_tokens_do_not_hold_the_word_before_them() -> None:
    # "a" + "  " + "b"
    offsets = [(0, 1), (1, 3), (3, 4)]
    assert end_token_index(offsets, 1) == 0
    assert end_token_index(offsets, 4) == 2


@pytest.mark.parametrize("span_end", [0, -1, 14, 100])
def test_an_end_outside_the_text_raises(span_end: int) -> None:
    with pytest.raises(AlignmentError, match=rf"code point {span_end - 1}.*\[0, 13\)"):
        end_token_index(OFFSETS, span_end)


def test_an_end_that_no_token_holds_raises() -> None:
    with pytest.raises(AlignmentError, match="code point 2"):
        end_token_index([(0, 2), (3, 5)], 3)
    with pytest.raises(AlignmentError, match="the tokens cover nothing"):
        end_token_index([], 1)


def test_rewards_are_placed_and_collisions_add() -> None:
    placed = place_rewards(5, [1, 4, 1], [0.5, -1.0, 0.25])
    assert placed.tolist() == [0.0, 0.75, 0.0, 0.0, -1.0]
    assert placed.dtype is torch.float32


def test_no_segments_give_no_reward() -> None:
    assert place_rewards(3, [], []).tolist() == [0.0, 0.0, 0.0]
    assert place_rewards(0, [], []).shape == (0,)


@pytest.mark.parametrize("end", [-1, 5, 6])
def test_an_end_token_out_of_range_raises(end: int) -> None:
    with pytest.raises(AlignmentError, match=f"end token {end} is outside the response of 5"):
        place_rewards(5, [1, end], [1.0, 1.0])


def test_ends_and_rewards_must_pair_up() -> None:
    with pytest.raises(AlignmentError, match="2 segment ends but 1 rewards"):
        place_rewards(5, [1, 2], [1.0])


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_raises(reward: float) -> None:
    with pytest.raises(ValueError, match="ends at token 2"):
        place_rewards(5, [1, 2], [1.0, reward])


def test_kl_penalty_by_hand() -> None:
    rewards = kl_penalised_rewards(
        token_rewards=torch.tensor([[0.0, 1.0, math.nan]]),
        logprobs=torch.tensor([[-1.0, -2.0, -math.inf]]),
        ref_logprobs=torch.tensor([[-1.5, -1.0, math.nan]]),
        response_mask=torch.tensor([[True, True, False]]),
        kl_coefficient=0.2,
    )
    # 0 - 0.2 * 0.5 and 1 - 0.2 * (-1)
    assert rewards.tolist() == [pytest.approx([-0.1, 1.2, 0.0])]


@pytest.mark.parametrize(("estimator", "paid"), [(kl_k1, -0.5), (kl_k2, 0.125), (kl_k3, math.exp(0.5) - 1.5)])
def test_the_estimator_decides_what_a_token_pays(estimator: KlEstimate, paid: float) -> None:
    """A token that the reference finds likelier earns under k1 alone."""
    zeros, mask = torch.zeros(1, 1), torch.tensor([[True]])
    rewards = kl_penalised_rewards(zeros, zeros - 1.0, zeros - 0.5, mask, 0.2, estimator)
    assert rewards.item() == pytest.approx(-0.2 * paid, rel=1e-5)
