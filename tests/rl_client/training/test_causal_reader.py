import torch

from rl_client.rollout.stages import TokenBatch
from rl_client.training.causal_reader import align_right, count_positions
from tests.rl_client.tiny_models import make_policy


def test_real_tokens_move_to_the_right_in_their_order():
    ids = torch.tensor([[5, 6, 0, 0], [0, 7, 8, 9], [1, 0, 2, 0]])
    mask = torch.tensor([[True, True, False, False], [False, True, True, True], [True, False, True, False]])
    moved, real = align_right(ids, mask)
    assert moved.tolist() == [[0, 0, 5, 6], [0, 7, 8, 9], [0, 0, 1, 2]]
    assert real.tolist() == [[False, False, True, True], [False, True, True, True], [False, False, True, True]]


def test_positions_count_real_tokens():
    mask = torch.tensor([[False, False, True, True, True], [True, True, True, False, False]])
    assert count_positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_a_pad_that_is_a_word_changes_nothing():
    """GPT-2's positions are learned, so padding would shift them if it were counted."""
    policy = make_policy("gpt2")

    def read(pad: int, width: int) -> torch.Tensor:
        prompt = torch.full((1, width), pad)
        prompt[0, :2] = torch.tensor([4, 5])
        real = torch.arange(width)[None] < 2
        response = torch.tensor([[6, 7, 1]])
        return policy(TokenBatch(prompt, real, torch.tensor([0]), response, torch.ones_like(response).bool()))

    torch.testing.assert_close(read(pad=9, width=7), read(pad=0, width=2), atol=1e-5, rtol=1e-5)
