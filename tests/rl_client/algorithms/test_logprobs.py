import math

import pytest
import torch

from rl_client.algorithms.logprobs import gather_logprobs, read_logprobs, read_logprobs_and_entropy


def test_the_sampled_tokens_probability_by_hand() -> None:
    # exp(logits) = 1, 3 and 1, 1: probabilities 1/4, 3/4 and 1/2, 1/2.
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, 5.0]]])
    assert gather_logprobs(logits, torch.tensor([[1, 0]]), temperature=1.0).tolist() == [
        pytest.approx([math.log(0.75), math.log(0.5)])
    ]


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[[0.0, math.log(9.0)]]])
    assert gather_logprobs(logits, torch.tensor([[1]]), temperature=2.0).item() == pytest.approx(math.log(0.75))


def test_every_token_sums_to_one_and_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([1e4, 1e4 - 1.0, -1e4]).expand(1, 3, 3)
    logprobs = gather_logprobs(logits, torch.tensor([[0, 1, 2]]), temperature=1.0)
    assert logprobs.isfinite().all()
    assert logprobs.exp().sum().item() == pytest.approx(1.0, abs=1e-3)


def test_half_precision_logits_give_float32() -> None:
    logits = torch.zeros(1, 1, 1000, dtype=torch.bfloat16)
    logprobs = gather_logprobs(logits, torch.tensor([[7]]), temperature=1.0)
    assert logprobs.dtype is torch.float32
    assert logprobs.item() == pytest.approx(-math.log(1000), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        gather_logprobs(torch.zeros(1, 1, 2), torch.tensor([[0]]), temperature=temperature)


class Head:
    """A vocabulary of 11 over 4 dimensions; notes how many rows of logits it was asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(11, 4, generator=generator, requires_grad=True)
        self.asked: list[int] = []

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(states))
        return states @ self.weight.T


def hidden_states() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, ids and mask of responses of 5, 1 and 3 tokens; NaN at the pads."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
    states = torch.where(mask[..., None], torch.randn(3, 5, 4, generator=generator), math.nan)
    return states.requires_grad_(), torch.randint(0, 11, (3, 5), generator=generator), mask


@pytest.mark.parametrize("chunk_tokens", [1, 4, 9, 100])
def test_reading_in_chunks_is_one_log_softmax_and_so_is_its_gradient(chunk_tokens: int) -> None:
    states, ids, mask = hidden_states()
    head = Head()
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    found = read_logprobs(states, ids, mask, head, temperature=0.7, chunk_tokens=chunk_tokens)
    (found * weights).sum().backward()
    gradients = states.grad, head.weight.grad

    plain, plain_weight = states.detach().nan_to_num().requires_grad_(), head.weight.detach().clone().requires_grad_()
    distribution = torch.log_softmax(plain @ plain_weight.T / 0.7, dim=-1)
    expected = torch.where(mask, distribution.gather(-1, ids[..., None])[..., 0], 0.0)
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, (plain.grad, plain_weight.grad))
    assert max(head.asked) == min(chunk_tokens, 9)
    assert sum(head.asked) == 2 * 9  # forward, and once more in the backward pass; no pads


def test_entropy_comes_with_the_same_logprobs_and_without_a_gradient() -> None:
    states, ids, mask = hidden_states()
    head = Head()
    logprobs, entropy = read_logprobs_and_entropy(states, ids, mask, head, temperature=0.7, chunk_tokens=4)
    probabilities = torch.softmax(states.detach() @ head.weight.detach().T / 0.7, dim=-1)
    torch.testing.assert_close(entropy[mask], -(probabilities * probabilities.log()).sum(-1)[mask])
    assert torch.equal(entropy[~mask], torch.zeros(6))
    assert torch.equal(logprobs, read_logprobs(states, ids, mask, head, temperature=0.7, chunk_tokens=4))
    assert not logprobs.requires_grad
    assert not entropy.requires_grad
