"""Optimizers, learning-rate schedules, clipping of gradients, and mixed precision."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rl_client.errors import ConfigError, NotFiniteError
from rl_client.training.config import Device, Precision, Schedule
from rl_client.training.shards import whole


def make_adamw(model: nn.Module, *, learning_rate: float, weight_decay: float, eps: float) -> AdamW:
    """AdamW over the trainable parameters, in one fused kernel."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, eps=eps, fused=True)


def make_schedule(optimizer: Optimizer, schedule: Schedule, *, warmup_ratio: float, steps: int) -> LambdaLR:
    """A learning rate that rises linearly for `warmup_ratio * steps` steps and then moves by `schedule`.

    The first step has a rate above 0 and the last one too, so that none is wasted.

    Args:
        optimizer: Its learning rate is the peak.
        schedule: constant, or down to 0 just after the last step, linearly or along half a cosine.
        warmup_ratio: In [0, 1].
        steps: Of the whole run.
    """
    warmup_steps = round(warmup_ratio * steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        if schedule is Schedule.LINEAR:
            return max(0.0, 1.0 - progress)
        if schedule is Schedule.COSINE:
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return 1.0

    return LambdaLR(optimizer, factor)


def clip_and_step(model: nn.Module, optimizer: Optimizer, *, max_grad_norm: float, name: str) -> float:
    """Clip the gradients' global norm and update.

    Args:
        model: With gradients.
        optimizer: Over its parameters; gradients are dropped afterwards.
        max_grad_norm: A larger norm is scaled down to this.
        name: Of the model, for the error.

    Returns:
        The norm before clipping.

    Raises:
        NotFiniteError: If it is NaN or infinite; nothing was updated.
    """
    norm = float(whole(nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)))
    if not math.isfinite(norm):
        raise NotFiniteError(f"the gradient of the {name} is {norm}; lower the learning rate or look at the rewards")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def use_threads(threads: int | None) -> None:
    """Bound the CPU threads of torch; None leaves its default."""
    if threads is not None:
        torch.set_num_threads(threads)


def pick_device(device: Device) -> torch.device:
    """The device that a setting means.

    Raises:
        ConfigError: If it asks for CUDA and there is none.
    """
    if device is Device.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device is Device.CUDA and not torch.cuda.is_available():
        raise ConfigError("settings", ["device: cuda was asked for, and torch finds none"])
    return torch.device(device.value)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context that forward passes run in."""
    if precision is Precision.BF16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
