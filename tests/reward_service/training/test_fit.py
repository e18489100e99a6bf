"""The loop on a model of one weight, whose examples are numbers."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from reward_service.core.backend import Backend
from reward_service.errors import ConfigError, ModelFailedError
from reward_service.training.config import TrainingConfig
from reward_service.training.figures import Metrics
from reward_service.training.fit import Run, fit
from reward_service.training.history import EpochFigures
from reward_service.training.interrupt import InterruptedTrainingError
from reward_service.training.objectives import HeldOut, Scored
from reward_service.training.processes import Processes


class Slope(torch.nn.Module):
    """One weight; the objective below pulls it to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 1))


class PullToThree:
    """Held-out loss is the distance to `target`, so that the best epoch need not be the last."""

    lengths: Sequence[int] = [1] * 8

    def __init__(self, model: Slope, target: float | None, noise: float = 0.0) -> None:
        self.model, self.target, self.noise, self.seen = model, target, noise, list[float]()

    def total(self, indices: Sequence[int]) -> float:
        return float(len(indices))

    def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> torch.Tensor:
        del device
        goals = 3.0 + self.noise * (torch.rand(len(indices)) + torch.tensor(indices))
        return ((model.weight - goals) ** 2).sum() / total

    def evaluate(self, backend: Backend) -> HeldOut:
        del backend
        self.seen.append(self.model.weight.item())
        loss = None if self.target is None else abs(self.seen[-1] - self.target)
        return HeldOut({"loss": loss, "epoch": len(self.seen)}, loss)

    def score(self, backend: Backend) -> list[Scored]:
        raise NotImplementedError


def run(**changes: Any) -> Run:
    given = {"use_bf16": False, "console": Console(quiet=True), **changes}
    return Run("slope", 0, Processes("cpu"), **given)


Trained = tuple[Slope, PullToThree, Metrics, list[EpochFigures]]


def train(target: float | None, noise: float = 0.0, within: Run | None = None, **changes: Any) -> Trained:
    model = Slope()
    objective = PullToThree(model, target, noise)
    given = {"epochs": 12, "batch_size": 2, "learning_rate": 0.2, "weight_decay": 0.0, "warmup_ratio": 0.0}
    settings = TrainingConfig.model_validate({**given, **changes})
    metrics, history = fit(model, objective, settings, backend=None, run=within or run())
    return model, objective, metrics, history


def test_it_learns() -> None:
    model, objective, metrics, history = train(target=3.0)
    assert model.weight.item() == pytest.approx(3.0, abs=0.3)
    assert len(objective.seen) == 12
    assert metrics["loss"] == pytest.approx(min(abs(weight - 3.0) for weight in objective.seen))
    assert [epoch.held_out_loss for epoch in history] == [abs(weight - 3.0) for weight in objective.seen]
    assert not model.training


def test_the_learning_curve_is_the_mean_over_batches() -> None:
    # The rate is so small that the weight stays at 0: every batch's loss is 9.
    _, _, _, history = train(target=3.0, epochs=2, learning_rate=1e-12)
    assert [epoch.train_loss for epoch in history] == pytest.approx([9.0, 9.0])


def test_the_best_epoch_is_kept() -> None:
    model, objective, metrics, _ = train(target=1.5)
    best = min(objective.seen, key=lambda weight: abs(weight - 1.5))
    assert best != objective.seen[-1]
    assert model.weight.item() == best
    assert metrics["epoch"] == objective.seen.index(best) + 1


def test_or_the_last_one() -> None:
    model, objective, metrics, _ = train(target=1.5, keep_best=False)
    assert model.weight.item() == objective.seen[-1]
    assert metrics["epoch"] == 12


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_the_training(patience: int) -> None:
    _, whole, _, _ = train(target=1.5)
    distances = [abs(weight - 1.5) for weight in whole.seen]
    # Epochs until `patience` in a row are no better than the best before them.
    stop = next(
        n for n in range(patience + 1, 13) if min(distances[n - patience : n]) >= min(distances[: n - patience])
    )
    model, objective, metrics, history = train(target=1.5, patience=patience)
    assert len(objective.seen) == len(history) == stop < 12
    assert metrics["loss"] == min(distances[:stop]) == abs(model.weight.item() - 1.5)


def test_patience_needs_something_held_out() -> None:
    with pytest.raises(ConfigError, match="patience needs held-out examples"):
        train(target=None, patience=1)
    _, objective, metrics, _ = train(target=None)
    assert metrics["epoch"] == len(objective.seen) == 12


def test_micro_batches_change_nothing() -> None:
    whole, _, _, curve = train(target=3.0, noise=0.0, batch_size=8, epochs=3)
    for size in (1, 3, 8):
        parts, _, _, same_curve = train(target=3.0, noise=0.0, batch_size=8, epochs=3, micro_batch_size=size)
        assert parts.weight.item() == pytest.approx(whole.weight.item(), rel=1e-6)
        assert [one.train_loss for one in same_curve] == pytest.approx([one.train_loss for one in curve])


def test_a_loss_that_is_no_number_is_told() -> None:
    with pytest.raises(ModelFailedError, match="no longer a number"):
        train(target=3.0, noise=float("inf"))


def stop_after(steps: int) -> Callable[[], bool]:
    counter = itertools.count(1)
    return lambda: next(counter) >= steps


@pytest.mark.parametrize("stops", [(1,), (3,), (4,), (2, 5, 1)])
def test_a_stopped_training_goes_on_to_the_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """An epoch has four steps: stops lie inside one, at its end, and come several times."""
    whole, straight, metrics, history = train(target=1.5, noise=0.1, epochs=3)
    for steps in stops:
        with pytest.raises(InterruptedTrainingError, match="goes on from there"):
            train(1.5, 0.1, run(checkpoints=tmp_path / "run", should_stop=stop_after(steps)), epochs=3)
        torch.rand(7)  # What happens in between moves no generator that counts.
    resumed, rest, same_metrics, same_history = train(1.5, 0.1, run(checkpoints=tmp_path / "run"), epochs=3)
    assert resumed.weight.item() == whole.weight.item()
    assert [epoch.train_loss for epoch in same_history] == [epoch.train_loss for epoch in history]
    assert [epoch.held_out_loss for epoch in same_history] == [epoch.held_out_loss for epoch in history]
    assert same_metrics["loss"] == metrics["loss"]
    assert len(rest.seen) < len(straight.seen) or sum(stops) <= 4


def test_the_best_epoch_and_the_patience_outlive_a_stop(tmp_path: Path) -> None:
    whole, _, metrics, history = train(target=1.5, patience=3)
    stale = len(history) - 1  # One stale epoch before the end.
    with pytest.raises(InterruptedTrainingError):
        train(1.5, within=run(checkpoints=tmp_path, should_stop=stop_after(4 * stale + 1)), patience=3)
    resumed, objective, same_metrics, same_history = train(1.5, within=run(checkpoints=tmp_path), patience=3)
    assert len(objective.seen) == 1
    assert resumed.weight.item() == whole.weight.item()
    assert same_metrics == metrics
    assert same_history == history


def test_checkpoints_come_after_epochs_and_every_so_many_steps(tmp_path: Path) -> None:
    written: list[str] = []

    def look() -> bool:
        written.extend(path.name for path in tmp_path.glob("step-*"))
        return False

    train(3.0, within=run(checkpoints=tmp_path, checkpoint_steps=3, should_stop=look), epochs=2)
    assert list(dict.fromkeys(written)) == ["step-00000003", "step-00000004", "step-00000006"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008"]


def test_weight_decay_is_on_matrices_only() -> None:
    model = Slope()
    model.bias = torch.nn.Parameter(torch.ones(1))

    class Still(PullToThree):
        def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> torch.Tensor:
            return (model.weight * 0.0).sum() + (model.bias * 0.0).sum()

    with torch.no_grad():
        model.weight.fill_(1.0)
    settings = TrainingConfig(epochs=1, batch_size=8, learning_rate=0.5, weight_decay=0.1, warmup_ratio=0.0)
    fit(model, Still(model, 0.0), settings, backend=None, run=run())
    # AdamW: w <- w - lr * decay * w, in the one step.
    assert model.weight.item() == pytest.approx(1.0 - 0.5 * 0.1)
    assert model.bias.item() == 1.0
