"""Everything of a PPO run that changes: how it is built, packed into a checkpoint, and restored."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from rl_client.errors import VersionChangedError
from rl_client.rollout.seeds import derive_seed
from rl_client.training.best_checkpoint import BestCheckpoint
from rl_client.training.checkpoint import Checkpoint, load_checkpoint
from rl_client.training.config import PpoSettings, TrainConfig
from rl_client.training.kl_control import KlControl
from rl_client.training.metric_log import Metrics
from rl_client.training.model_files import check_same_tokens
from rl_client.training.models import PolicyModel, ValueModel, load_policy, load_value
from rl_client.training.optim import autocast, make_adamw, make_schedule
from rl_client.training.ppo_step import Trainee
from rl_client.training.reference import make_reference
from rl_client.training.reward_statistics import RewardStatistics
from rl_client.training.run_folder import config_digest, file_digests
from rl_client.training.settings_models import ValueTrunk
from rl_client.training.sharding import Sharding
from rl_client.training.shared_value import SharedValueModel
from rl_client.training.state import (
    pack_optimizer,
    pack_random,
    pack_schedule,
    pack_weights,
    unpack_optimizer,
    unpack_random,
    unpack_weights,
)
from rl_client.training.whole_models import WholeModels

FREE_SETTINGS = {
    "output",
    "threads",
    "device",
    "service",
    "checkpoint",
    "diagnostics",
    "policy",
    "value",
    "prompts",
    "gradient_checkpointing",
    "compile",
    "pipeline",
    "processes",
}
"""What may differ in a resumed run; the files that the paths name may not."""


@dataclass
class PpoState:
    """A run's models, optimizers, schedules and counts.

    Attributes:
        trainee: Policy, value model and their optimizers.
        whole: What samples and reads: the policy, its reference and the value model.
        policy_schedule: Learning rate of the policy, one tick a step after the value warm-up.
        value_schedule: Learning rate of the value model, one tick a step.
        versions: By reward model the version and runtime that the run pinned.
        device: Where the models are.
        precision: The context of forward passes.
        kl_control: The price of leaving the reference.
        reward_statistics: Running mean and spread of each source's scores.
        best: The best checkpoint so far.
        kl_overruns: Steps so far whose KL was above `max_kl`.
        sampler: A copy of the policy that samples while the policy trains; None where rollouts are never stale.
    """

    trainee: Trainee
    whole: WholeModels
    policy_schedule: LambdaLR
    value_schedule: LambdaLR
    versions: dict[str, str]
    device: torch.device
    precision: AbstractContextManager[object]
    kl_control: KlControl
    reward_statistics: RewardStatistics
    best: BestCheckpoint
    kl_overruns: int = 0
    sampler: PolicyModel | None = None

    @property
    def reference(self) -> PolicyModel:
        """The policy as it was at the start; never changes."""
        return self.whole.reference

    def tick(self, metrics: Metrics, *, updated_policy: bool) -> None:
        """Move the learning rates and the KL coefficient on by a step."""
        if updated_policy:
            self.policy_schedule.step()
        self.value_schedule.step()
        self.kl_control.follow(metrics)

    def is_kl_limit_reached(self, metrics: Metrics, settings: PpoSettings) -> bool:
        """Count a step whose KL is over `max_kl`; True when it is the `max_kl_times`-th of the run, or a later one."""
        kl = metrics["kl"]
        if settings.max_kl is None or kl is None or kl <= settings.max_kl:
            return False
        self.kl_overruns += 1
        return self.kl_overruns >= settings.max_kl_times


def build_state(
    config: TrainConfig, device: torch.device, versions: dict[str, str], sharding: Sharding | None = None
) -> PpoState:
    """Load the models and make their optimizers.

    Args:
        config: The run's settings.
        device: Where the models go.
        versions: Of the reward models.
        sharding: How weights are divided among processes; None leaves them whole.

    Raises:
        ModelFilesError: If a model directory cannot be used.
    """
    ppo = config.ppo
    policy = load_policy(config.policy)
    if config.lora is not None:
        policy.add_adapter(config.lora, derive_seed(config.seed, "lora", 0))
    policy = policy.to(device)
    reference = make_reference(policy)
    # Copied before anything is compiled, with an adapter of its own: it computes in another thread. Not frozen, so that
    # a checkpoint holds the same of it as of the policy.
    sampler = copy.deepcopy(policy) if config.pipeline.staleness else None
    value = _build_value(config, policy).to(device)
    policy.prepare(config)
    if config.compile:
        reference.reader.compile()
    whole = WholeModels(policy, reference, value)
    if sharding is not None:
        whole = WholeModels.divide(policy, reference, value, sharding)
    policy_optimizer = make_adamw(
        policy, learning_rate=ppo.learning_rate, weight_decay=ppo.weight_decay, eps=ppo.adam_eps
    )
    value_optimizer = make_adamw(
        value, learning_rate=ppo.value_learning_rate, weight_decay=ppo.weight_decay, eps=ppo.adam_eps
    )
    policy_steps = max(1, ppo.steps - ppo.value_warmup_steps)
    return PpoState(
        trainee=Trainee(policy, value, policy_optimizer, value_optimizer),
        whole=whole,
        policy_schedule=make_schedule(
            policy_optimizer, ppo.schedule, warmup_ratio=ppo.warmup_ratio, steps=policy_steps
        ),
        value_schedule=make_schedule(value_optimizer, ppo.schedule, warmup_ratio=ppo.warmup_ratio, steps=ppo.steps),
        versions=versions,
        device=device,
        precision=autocast(device, config.precision),
        kl_control=KlControl(config.kl, ppo.kl_coefficient),
        reward_statistics=RewardStatistics(config.rewards),
        best=BestCheckpoint(config.checkpoint.best_metric),
        sampler=sampler,
    )


def _build_value(config: TrainConfig, policy: PolicyModel) -> ValueModel:
    if config.value_trunk is ValueTrunk.SHARED:
        return SharedValueModel(policy)
    value = load_value(config.value or config.policy)
    if config.value is not None:
        check_same_tokens(config.policy, config.value)
    if config.lora is not None:
        value.add_adapter(config.lora, derive_seed(config.seed, "lora", 1))
    value.prepare(config)
    return value


def pack_state(state: PpoState, config: TrainConfig, digest: str, step: int, *, keep: bool = True) -> Checkpoint:
    """The run's whole state after a step.

    Args:
        state: Of the run.
        config: Its settings.
        digest: Of them.
        step: The last step that is done.
        keep: False in a process that only gives its part of divided weights; it gets no tensors.
    """
    trainee = state.trainee
    policy_moments, policy_groups = pack_optimizer(trainee.policy_optimizer, keep=keep)
    value_moments, value_groups = pack_optimizer(trainee.value_optimizer, keep=keep)
    random_tensors, random_state = pack_random()
    sampler = {} if state.sampler is None else {"sampler": pack_weights(state.sampler, keep=keep)}
    return Checkpoint(
        step=step,
        tensors={
            "policy": pack_weights(trainee.policy, keep=keep),
            "value": pack_weights(trainee.value, keep=keep),
            "policy_optimizer": policy_moments,
            "value_optimizer": value_moments,
            "random": random_tensors,
            **sampler,
        },
        state={
            "config_digest": digest,
            "policy_optimizer": policy_groups,
            "value_optimizer": value_groups,
            "policy_schedule": pack_schedule(state.policy_schedule),
            "value_schedule": pack_schedule(state.value_schedule),
            "random": random_state,
            "data_position": step * config.ppo.prompts_per_step,
            "versions": state.versions,
            "kl_overruns": state.kl_overruns,
            "kl_control": state.kl_control.pack(),
            "reward_statistics": state.reward_statistics.pack(),
            "best": state.best.pack(),
        },
    )


def restore_state(state: PpoState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into freshly built models and optimizers.

    Raises:
        VersionChangedError: If the service serves other versions than those the run pinned.
        CheckpointError: If weights or optimizer states do not fit.
    """
    saved = checkpoint.state
    if saved["versions"] != state.versions:
        changed = [
            f"{name}: pinned {version}, served {state.versions.get(name)}"
            for name, version in saved["versions"].items()
            if version != state.versions.get(name)
        ]
        raise VersionChangedError(f"the run cannot go on with other reward models ({'; '.join(changed)})")
    trainee = state.trainee
    unpack_weights(trainee.policy, checkpoint.tensors["policy"])
    unpack_weights(trainee.value, checkpoint.tensors["value"])
    if state.sampler is not None:
        unpack_weights(state.sampler, checkpoint.tensors["sampler"])
    unpack_optimizer(
        trainee.policy_optimizer, checkpoint.tensors.get("policy_optimizer", {}), saved["policy_optimizer"]
    )
    unpack_optimizer(trainee.value_optimizer, checkpoint.tensors["value_optimizer"], saved["value_optimizer"])
    state.policy_schedule.load_state_dict(dict(saved["policy_schedule"]))
    state.value_schedule.load_state_dict(dict(saved["value_schedule"]))
    state.kl_overruns = saved["kl_overruns"]
    state.kl_control.unpack(saved["kl_control"])
    state.reward_statistics.unpack(saved["reward_statistics"])
    state.best.unpack(saved["best"])
    unpack_random(checkpoint.tensors["random"], saved["random"])


@contextmanager
def borrow_policy(state: PpoState, path: Path) -> Iterator[PolicyModel]:
    """The whole policy with the weights of a checkpoint; afterwards it has its own again.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or holds another policy.
    """
    policy = state.whole.policy
    own = {name: tensor.clone() for name, tensor in pack_weights(policy).items()}
    unpack_weights(policy, load_checkpoint(path).tensors["policy"])
    try:
        yield policy
    finally:
        unpack_weights(policy, own)


def train_digest(config: TrainConfig) -> str:
    """A digest of the settings and files that change the run's results.

    The number of steps is left out, so that a run can be prolonged.
    """
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    del settings["ppo"]["steps"]
    files: Mapping[str, str] = file_digests([config.policy, config.prompts, *([config.value] if config.value else [])])
    return config_digest({**settings, "staleness": config.pipeline.staleness, "files": list(files.values())})
