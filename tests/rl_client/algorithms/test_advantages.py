import pytest
import torch

from rl_client.algorithms.advantages import compute_gae


def test_three_tokens_by_hand() -> None:
    # gamma 0.5, lambda 0.5. TD errors: 1 + 0.5*2 - 4 = -2;  0 + 0.5*1 - 2 = -1.5;  3 - 1 = 2.
    # Advantages, backwards with 0.25: 2;  -1.5 + 0.25*2 = -1;  -2 + 0.25*(-1) = -2.25.
    advantages, returns = compute_gae(
        torch.tensor([[1.0, 0.0, 3.0]]),
        torch.tensor([[4.0, 2.0, 1.0]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=0.5,
        gae_lambda=0.5,
    )
    assert advantages.tolist() == [pytest.approx([-2.25, -1.0, 2.0])]
    assert returns.tolist() == [pytest.approx([1.75, 1.0, 3.0])]


def test_masked_positions_are_skipped_wherever_they_stand() -> None:
    rewards, values = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([4.0, 2.0, 1.0])
    wide_rewards, wide_values = torch.full((1, 6), 99.0), torch.full((1, 6), -99.0)
    mask = torch.tensor([[False, True, False, True, True, False]])
    wide_rewards[mask], wide_values[mask] = rewards, values
    advantages, returns = compute_gae(wide_rewards, wide_values, mask, gamma=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [pytest.approx([0.0, -2.25, 0.0, -1.0, 2.0, 0.0])]
    assert returns.tolist() == [pytest.approx([0.0, 1.75, 0.0, 1.0, 3.0, 0.0])]


@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
def test_nothing_gives_nothing(shape: tuple[int, int]) -> None:
    empty = torch.zeros(shape)
    advantages, returns = compute_gae(empty, empty, empty.bool(), gamma=1.0, gae_lambda=0.95)
    assert advantages.shape == returns.shape == shape


def test_inputs_are_left_as_they_were() -> None:
    rewards, values = torch.ones(2, 3), torch.ones(2, 3)
    compute_gae(rewards, values, torch.zeros(2, 3, dtype=torch.bool), gamma=1.0, gae_lambda=1.0)
    assert torch.equal(rewards, torch.ones(2, 3))
    assert torch.equal(values, torch.ones(2, 3))
