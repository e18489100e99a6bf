import math

import pytest
import torch

from reward_service.training.labels import IGNORED
from reward_service.training.losses import pairwise_loss, span_loss


def test_cross_entropy_at_the_separators_by_hand() -> None:
    read = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0], [0.0, 0.0]])  # P = (1/4, 3/4), (4/5, 1/5), halves
    labels = torch.tensor([1, 1, IGNORED])
    loss = span_loss(read, labels)
    assert loss.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 5))
    labels = torch.tensor([1, 0, IGNORED])
    weighted = span_loss(read, labels, torch.tensor([3.0, 0.5]))
    assert weighted.item() == pytest.approx(-0.5 * math.log(3 / 4) - 3 * math.log(4 / 5))


def test_only_counted_segments_get_a_gradient() -> None:
    read = torch.randn(2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.autograd.backward(span_loss(read, torch.tensor([0, IGNORED])))
    assert read.grad is not None
    assert (read.grad.abs().sum(dim=-1) > 0).tolist() == [True, False]


def test_all_ignored_is_zero_with_zero_gradients() -> None:
    read = torch.randn(1, 2, requires_grad=True)
    loss = span_loss(read, torch.tensor([IGNORED]))
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert read.grad is not None
    assert read.grad.abs().sum().item() == 0.0


def test_the_pairwise_loss_by_hand() -> None:
    scores = torch.tensor([math.log(3.0), 0.0, math.log(2.0)])
    # sigmoid(log 3) = 3/4; sigmoid(-log 2) = 1/3; weights 1 and 1/2.
    loss = pairwise_loss(scores, torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(-math.log(3 / 4) - 0.5 * math.log(1 / 3))


def test_equal_scores_cost_log_two_and_huge_margins_stay_finite() -> None:
    one = torch.ones(1)
    first, second = torch.tensor([0]), torch.tensor([1])
    assert pairwise_loss(torch.zeros(2), first, second, one).item() == pytest.approx(math.log(2))
    assert pairwise_loss(torch.tensor([-1e4, 1e4]), first, second, one).item() == pytest.approx(2e4)
    assert pairwise_loss(torch.tensor([1e4, -1e4]), first, second, one).item() == 0.0


def test_no_pair_is_zero() -> None:
    scores = torch.zeros(2, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    loss = pairwise_loss(scores, none, none, torch.empty(0))
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0, 0.0]
