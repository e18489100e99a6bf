"""Everything of a fine-tuning run that changes: how it is built, packed into a checkpoint, and restored."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rl_client.rollout.seeds import derive_seed
from rl_client.training.checkpoint import Checkpoint
from rl_client.training.config import SftConfig
from rl_client.training.models import PolicyModel, init_policy, load_policy
from rl_client.training.optim import autocast, make_adamw, make_schedule
from rl_client.training.run_folder import config_digest, file_digests
from rl_client.training.state import (
    pack_optimizer,
    pack_random,
    pack_schedule,
    pack_weights,
    unpack_optimizer,
    unpack_random,
    unpack_weights,
)

FREE_SETTINGS = {"output", "threads", "device", "checkpoint", "model", "data", "gradient_checkpointing", "compile"}
"""What may differ in a resumed run; the files that the paths name may not."""


@dataclass(frozen=True)
class SftState:
    """A run's model, optimizer and schedule."""

    policy: PolicyModel
    optimizer: Optimizer
    schedule: LambdaLR
    device: torch.device
    precision: AbstractContextManager[object]


def build_sft_state(config: SftConfig, device: torch.device) -> SftState:
    """Load or initialise the model, in training mode, and seed torch's global generator, which dropout draws from.

    Raises:
        ModelFilesError: If the model directory cannot be used.
    """
    training = config.training
    policy = init_policy(config.model, config.seed) if config.from_scratch else load_policy(config.model)
    if config.lora is not None:
        policy.add_adapter(config.lora, derive_seed(config.seed, "lora", 0))
    policy.prepare(config)
    policy.to(device).train()
    torch.manual_seed(derive_seed(config.seed, "dropout"))
    optimizer = make_adamw(
        policy, learning_rate=training.learning_rate, weight_decay=training.weight_decay, eps=training.adam_eps
    )
    schedule = make_schedule(optimizer, training.schedule, warmup_ratio=training.warmup_ratio, steps=training.steps)
    return SftState(policy, optimizer, schedule, device, autocast(device, config.precision))


def pack_sft_state(state: SftState, config: SftConfig, digest: str, step: int) -> Checkpoint:
    """The run's whole state after a step."""
    moments, groups = pack_optimizer(state.optimizer)
    random_tensors, random_state = pack_random()
    return Checkpoint(
        step=step,
        tensors={"policy": pack_weights(state.policy), "optimizer": moments, "random": random_tensors},
        state={
            "config_digest": digest,
            "optimizer": groups,
            "schedule": pack_schedule(state.schedule),
            "random": random_state,
            "data_position": step * config.training.batch_size,
        },
    )


def restore_sft_state(state: SftState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a freshly built state.

    Raises:
        CheckpointError: If weights or the optimizer's state do not fit.
    """
    unpack_weights(state.policy, checkpoint.tensors["policy"])
    unpack_optimizer(state.optimizer, checkpoint.tensors["optimizer"], checkpoint.state["optimizer"])
    state.schedule.load_state_dict(dict(checkpoint.state["schedule"]))
    unpack_random(checkpoint.tensors["random"], checkpoint.state["random"])


def sft_digest(config: SftConfig) -> str:
    """A digest of the settings and files that change the run's results; the number of steps is left out."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    del settings["training"]["steps"]
    data = [path for path in (config.data.train, config.data.dev) if path is not None]
    return config_digest({**settings, "files": list(file_digests([config.model, *data]).values())})
