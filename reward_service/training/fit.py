"""The training loop: AdamW, linear warm-up and decay, batches of like lengths, the best epoch kept."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reward_service.core.backend import Backend
from reward_service.training.config import TrainingConfig
from reward_service.training.figures import Metrics
from reward_service.training.objectives import Objective

LENGTH_POOL_BATCHES = 32
"""Batches of like lengths are cut from a random pool of this many batches."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the loop must know besides the model and its settings.

    Attributes:
        name: Shown beside the progress bar.
        seed: Of dropout and of the order of examples.
        device: Where the model is.
        use_bf16: Whether the forward pass runs under bf16 autocast.
        console: Shows the bar where it is a terminal.
    """

    name: str
    seed: int
    device: torch.device
    use_bf16: bool
    console: Console


def fit(model: Any, objective: Objective, settings: TrainingConfig, backend: Backend, run: Run) -> Metrics:
    """Train a model in place.

    Args:
        model: A transformers model.
        objective: What it is taught and how it is judged.
        settings: Epochs, rates and so on.
        backend: The same model, behind the seam that held-out examples are scored through.
        run: Seed, device, console.

    Returns:
        The held-out figures of the weights that are kept.
    """
    torch.manual_seed(run.seed)
    order = np.random.default_rng(run.seed)
    lengths = objective.lengths
    steps = settings.epochs * batches_an_epoch(len(lengths), settings.batch_size)
    optimizer = _optimizer(model, settings, run.device)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_share(step, steps, round(steps * settings.warmup_ratio))
    )
    parameters = list(model.parameters())
    best: tuple[float, Metrics, dict[str, Any]] | None = None
    metrics: Metrics = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=run.console, disable=not run.console.is_terminal) as progress:
        task = progress.add_task(run.name, total=steps)
        for _ in range(settings.epochs):
            model.train()
            for indices in length_grouped_batches(lengths, settings.batch_size, order):
                with torch.autocast(run.device.type, torch.bfloat16) if run.use_bf16 else nullcontext():
                    loss = objective.loss(model, indices, run.device)
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                if run.console.is_terminal:
                    progress.update(task, advance=1, description=f"{run.name} loss {loss.item():.3f}")
            metrics = objective.evaluate(backend)
            held_out = metrics["loss"]
            if settings.keep_best and held_out is not None and (best is None or held_out < best[0]):
                best = (held_out, metrics, copy.deepcopy(model.state_dict()))
    model.eval()
    if best is None:
        return metrics
    model.load_state_dict(best[2])
    return best[1]


def length_grouped_batches(lengths: Sequence[int], batch_size: int, order: np.random.Generator) -> Iterator[list[int]]:
    """Every index once, in random batches of like lengths, so that little is computed on padding."""
    shuffled = order.permutation(len(lengths))
    pool = batch_size * LENGTH_POOL_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), pool):
        by_length = sorted(shuffled[start : start + pool].tolist(), key=lengths.__getitem__)
        batches.extend(by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size))
    for index in order.permutation(len(batches)):
        yield batches[index]


def batches_an_epoch(examples: int, batch_size: int) -> int:
    """How many batches `length_grouped_batches` makes."""
    return math.ceil(examples / batch_size)


def learning_rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate: a straight line up over the warm-up, then down to 0 after the last step."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))


def _optimizer(model: Any, settings: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=device.type in {"cpu", "cuda"})
