from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from reward_service.core.backend import Backend
from reward_service.training.config import TrainingConfig
from reward_service.training.figures import Metrics
from reward_service.training.fit import Run, batches_an_epoch, fit, learning_rate_share, length_grouped_batches


def test_an_epoch_visits_each_example_once_in_batches_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=1000).tolist()
    batches = list(length_grouped_batches(lengths, 16, np.random.default_rng(1)))
    assert sorted(index for batch in batches for index in batch) == list(range(1000))
    assert len(batches) == batches_an_epoch(1000, 16) == 63
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


def test_epochs_differ_and_seeds_repeat() -> None:
    lengths = [1] * 50
    order = np.random.default_rng(3)
    first, second = (list(length_grouped_batches(lengths, 4, order)) for _ in range(2))
    assert first != second
    assert first == list(length_grouped_batches(lengths, 4, np.random.default_rng(3)))


def test_the_learning_rate_rises_then_falls() -> None:
    shares = [learning_rate_share(step, 10, 2) for step in range(11)]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert learning_rate_share(0, 5, 0) == 1.0
    assert learning_rate_share(5, 5, 5) == 0.0


class Slope(torch.nn.Module):
    """One weight; the objective below pulls it to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 1))


class PullToThree:
    """Held-out loss is the distance to `target`, so that the best epoch need not be the last."""

    lengths: Sequence[int] = [1] * 8

    def __init__(self, model: Slope, target: float) -> None:
        self.model, self.target, self.seen = model, target, list[float]()

    def loss(self, model: Any, indices: Sequence[int], device: torch.device) -> torch.Tensor:
        del indices, device
        return ((model.weight - 3.0) ** 2).sum()

    def evaluate(self, backend: Backend) -> Metrics:
        del backend
        self.seen.append(self.model.weight.item())
        return {"loss": abs(self.seen[-1] - self.target), "epoch": len(self.seen)}


def run() -> Run:
    return Run("slope", 0, torch.device("cpu"), use_bf16=False, console=Console(quiet=True))


def train(target: float, **changes: Any) -> tuple[Slope, PullToThree, Metrics]:
    model = Slope()
    objective = PullToThree(model, target)
    given = {"epochs": 12, "batch_size": 2, "learning_rate": 0.2, "weight_decay": 0.0, "warmup_ratio": 0.0}
    settings = TrainingConfig.model_validate({**given, **changes})
    metrics = fit(model, objective, settings, backend=None, run=run())
    return model, objective, metrics


def test_it_learns() -> None:
    model, objective, metrics = train(target=3.0)
    assert model.weight.item() == pytest.approx(3.0, abs=0.3)
    assert len(objective.seen) == 12
    assert metrics["loss"] == pytest.approx(min(abs(weight - 3.0) for weight in objective.seen))
    assert not model.training


def test_the_best_epoch_is_kept() -> None:
    model, objective, metrics = train(target=1.5)
    best = min(objective.seen, key=lambda weight: abs(weight - 1.5))
    assert best != objective.seen[-1]
    assert model.weight.item() == best
    assert metrics["epoch"] == objective.seen.index(best) + 1


def test_or_the_last_one() -> None:
    model, objective, metrics = train(target=1.5, keep_best=False)
    assert model.weight.item() == objective.seen[-1]
    assert metrics["epoch"] == 12


def test_weight_decay_is_on_matrices_only() -> None:
    model = Slope()
    model.bias = torch.nn.Parameter(torch.ones(1))

    class Still(PullToThree):
        def loss(self, model: Any, indices: Sequence[int], device: torch.device) -> torch.Tensor:
            return (model.weight * 0.0).sum() + (model.bias * 0.0).sum()

    with torch.no_grad():
        model.weight.fill_(1.0)
    settings = TrainingConfig(epochs=1, batch_size=8, learning_rate=0.5, weight_decay=0.1, warmup_ratio=0.0)
    fit(model, Still(model, 0.0), settings, backend=None, run=run())
    # AdamW: w <- w - lr * decay * w, in the one step.
    assert model.weight.item() == pytest.approx(1.0 - 0.5 * 0.1)
    assert model.bias.item() == 1.0
