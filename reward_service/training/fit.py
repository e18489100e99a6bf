"""The training loop: AdamW, batches of like lengths, the best epoch kept, early stop, resume to the bit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from reward_service.core.backend import Backend
from reward_service.errors import ConfigError, ModelFailedError
from reward_service.training import checkpoint as checkpoints
from reward_service.training.checkpoint import Checkpoint
from reward_service.training.config import TrainingConfig
from reward_service.training.figures import Metrics
from reward_service.training.history import EpochFigures
from reward_service.training.interrupt import InterruptedTrainingError
from reward_service.training.objectives import HeldOut, Objective
from reward_service.training.processes import Processes
from reward_service.training.schedule import batches_an_epoch, learning_rate_share, length_grouped_batches


@dataclass(frozen=True, slots=True)
class Run:
    """What the loop must know besides the model and its settings.

    Attributes:
        name: Shown beside the progress bar.
        seed: Of dropout and of the order of examples.
        processes: Those that train together.
        use_bf16: Whether the forward pass runs under bf16 autocast.
        console: Shows the bar where it is a terminal.
        checkpoints: This training's folder; it goes on from what is there. None writes none.
        checkpoint_steps: Write one after so many steps too, and not only after each epoch.
        should_stop: Asked after each step.
    """

    name: str
    seed: int
    processes: Processes
    use_bf16: bool
    console: Console
    checkpoints: Path | None = None
    checkpoint_steps: int | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class _Position:
    """How far a training is. JSON holds it, so that a checkpoint can.

    Attributes:
        step: Steps done.
        epoch: Epochs done.
        batch: Batches done of the epoch that runs.
        order: State of the generator of the epoch's order, from before it was drawn.
        loss_sum: Over the batches done of the epoch; this process's share.
        history: The epochs done.
        metrics: Held-out figures of the weights that are kept.
        best_loss: The lowest held-out loss.
        stale_epochs: Epochs since it was reached.
    """

    order: dict[str, Any]
    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=dict)
    best_loss: float | None = None
    stale_epochs: int = 0


def fit(
    model: Any, objective: Objective, settings: TrainingConfig, backend: Backend, run: Run
) -> tuple[Metrics, list[EpochFigures]]:
    """Train a model in place.

    Args:
        model: A transformers model.
        objective: What it is taught and how it is judged.
        settings: Epochs, rates and so on.
        backend: The same model, behind the seam that held-out examples are scored through.
        run: Seed, processes, console, checkpoints.

    Returns:
        The held-out figures of the weights that are kept, and the learning curve.

    Raises:
        InterruptedTrainingError: It was told to stop; a checkpoint is written where there is a folder for it.
        ModelFailedError: The loss is no longer a number.
        StoreError: The checkpoint is damaged.
    """
    return _Fitting(model, objective, settings, backend, run).run()


class _Fitting:
    def __init__(self, model: Any, objective: Objective, settings: TrainingConfig, backend: Backend, run: Run) -> None:
        self._model = model
        self._objective = objective
        self._settings = settings
        self._backend = backend
        self._run = run
        self._processes = run.processes
        torch.manual_seed(run.seed + run.processes.rank)
        self._order = np.random.default_rng(run.seed)
        self._lengths = objective.lengths
        self._epoch_steps = batches_an_epoch(len(self._lengths), settings.batch_size)
        self._optimizer = _optimizer(model, settings, run.processes.device)
        self._position = _Position(dict(self._order.bit_generator.state))
        self._best_weights: dict[str, Tensor] | None = None
        self._saved_step = 0
        self._restore()

    def run(self) -> tuple[Metrics, list[EpochFigures]]:
        position, settings = self._position, self._settings
        console = self._run.console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            steps = settings.epochs * self._epoch_steps
            task = progress.add_task(self._run.name, total=steps, completed=position.step)
            while position.epoch < settings.epochs and not self._is_stale():
                self._order.bit_generator.state = position.order
                batches = length_grouped_batches(self._lengths, settings.batch_size, self._order)
                for indices in batches[position.batch :]:
                    loss = self._step(indices)
                    progress.update(task, advance=1, description=f"{self._run.name} loss {loss:.3f}")
                    self._save_or_stop()
                self._end_epoch()
                self._save()
        self._model.eval()
        if self._best_weights is not None:
            checkpoints.put_weights(self._model, self._best_weights)
        return position.metrics, [EpochFigures(**epoch) for epoch in position.history]

    def _is_stale(self) -> bool:
        patience = self._settings.patience
        return patience is not None and self._position.stale_epochs >= patience

    def _step(self, indices: Sequence[int]) -> float:
        """One update; returns this process's share of the batch's loss."""
        position, settings, processes = self._position, self._settings, self._processes
        steps = settings.epochs * self._epoch_steps
        share = learning_rate_share(position.step, steps, round(steps * settings.warmup_ratio))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        self._model.train()
        total = self._objective.total(indices)
        mine = processes.share(indices)
        size = settings.micro_batch_size or max(1, len(mine))
        batch_loss = 0.0
        for start in range(0, len(mine), size):
            with torch.autocast(processes.device.type, torch.bfloat16, enabled=self._run.use_bf16):
                part = mine[start : start + size]
                loss = self._objective.loss(self._model, part, total, processes.device)
            torch.autograd.backward(loss)
            batch_loss += loss.item()
        processes.sum_gradients(self._model.parameters())
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        position.step += 1
        position.batch += 1
        position.loss_sum += batch_loss
        return batch_loss

    def _end_epoch(self) -> None:
        position, processes = self._position, self._processes
        train_loss = processes.sum(position.loss_sum) / self._epoch_steps
        if not math.isfinite(train_loss):
            raise ModelFailedError(f"{self._run.name}: the loss is no longer a number; lower the learning rate")
        held_out: HeldOut = processes.from_main(self._objective.evaluate(self._backend) if processes.is_main else None)
        if held_out.loss is None and self._settings.patience is not None:
            raise ConfigError(self._run.name, ["patience needs held-out examples that count, and there are none"])
        position.history.append(asdict(EpochFigures(train_loss, held_out.loss)))
        position.epoch += 1
        position.batch = 0
        position.loss_sum = 0.0
        position.order = dict(self._order.bit_generator.state)
        if not self._settings.keep_best or held_out.loss is None:
            position.metrics = held_out.metrics
        elif position.best_loss is None or held_out.loss < position.best_loss:
            position.metrics, position.best_loss, position.stale_epochs = held_out.metrics, held_out.loss, 0
            self._best_weights = checkpoints.copy_weights(self._model)
        else:
            position.stale_epochs += 1

    def _save_or_stop(self) -> None:
        every = self._run.checkpoint_steps
        if self._processes.any(self._run.should_stop()):
            self._save()
            raise InterruptedTrainingError(
                f"{self._run.name}: stopped after step {self._position.step}; the same command goes on from there"
            )
        if every is not None and self._position.step % every == 0 and self._position.batch < self._epoch_steps:
            self._save()

    def _save(self) -> None:
        folder, position, processes = self._run.checkpoints, self._position, self._processes
        if folder is None or position.step == self._saved_step:
            return
        loss_sum = processes.sum(position.loss_sum)
        states = {f"cpu.{rank}": state for rank, state in enumerate(processes.gather(torch.get_rng_state()))}
        if processes.device.type == "cuda":
            mine = torch.cuda.get_rng_state(processes.device)
            states |= {f"cuda.{rank}": state for rank, state in enumerate(processes.gather(mine))}
        if processes.is_main:
            tensors = {
                "model": checkpoints.copy_weights(self._model),
                "optimizer": checkpoints.pack_optimizer(self._optimizer),
                "random": states,
            }
            if self._best_weights is not None:
                tensors["best"] = self._best_weights
            state = {**asdict(position), "loss_sum": loss_sum}
            checkpoints.save_checkpoint(folder, position.step, Checkpoint(tensors, state))
        self._saved_step = position.step

    def _restore(self) -> None:
        folder, processes = self._run.checkpoints, self._processes
        found = None if folder is None else checkpoints.load_checkpoint(folder)
        if found is None:
            return
        self._position = _Position(**found.state)
        if not processes.is_main:
            self._position.loss_sum = 0.0
        self._saved_step = self._position.step
        checkpoints.put_weights(self._model, found.tensors["model"])
        checkpoints.unpack_optimizer(self._optimizer, found.tensors["optimizer"])
        self._best_weights = dict(found.tensors["best"]) if "best" in found.tensors else None
        states = found.tensors["random"]
        # With another number of processes each draws its own dropout anew.
        if len([name for name in states if name.startswith("cpu.")]) == processes.count:
            torch.set_rng_state(states[f"cpu.{processes.rank}"])
            if f"cuda.{processes.rank}" in states and processes.device.type == "cuda":
                torch.cuda.set_rng_state(states[f"cuda.{processes.rank}"], processes.device)
        self._run.console.print(f"{self._run.name}: goes on after step {self._position.step}")


def _optimizer(model: Any, settings: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    others = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=device.type in {"cpu", "cuda"})
