import math

import pytest
import torch

from rl_client.algorithms.logprobs import gather_logprobs


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
