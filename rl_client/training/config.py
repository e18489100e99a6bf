"""Frozen settings of every command, read from YAML; all faults of a file are reported at once.

docs/training.md explains each setting; a test fails when one is missing there.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from rl_client.errors import ConfigError
from rl_client.training.settings_base import Count, NotNegative, Positive, Settings, Share
from rl_client.training.settings_checkpoint import CheckpointSettings, TrainCheckpointSettings, check_best_metric
from rl_client.training.settings_diagnostics import DiagnosticsSettings
from rl_client.training.settings_faults import describe, missing_paths
from rl_client.training.settings_kl import KlSettings
from rl_client.training.settings_models import NetworkSettings, PromptFormatSettings, ValueTrunk
from rl_client.training.settings_pipeline import PipelineSettings
from rl_client.training.settings_processes import ProcessSettings
from rl_client.training.settings_rewards import Normalization, PenaltySettings, RewardSettings, check_rewards


class Device(StrEnum):
    """Where the models live."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """What forward passes compute in; weights, losses and log-probabilities are fp32 always."""

    FP32 = "fp32"
    BF16 = "bf16"


class Schedule(StrEnum):
    """How the learning rate moves after its warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class RuntimeSettings(Settings):
    """What every command has: where it writes, its seed, and what it computes on."""

    output: Path
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count | None = None
    device: Device = Device.AUTO
    precision: Precision = Precision.FP32


class SftDataSettings(Settings):
    """Demonstrations: JSONL files of `{"id", "prompt", "response"}`."""

    train: Path
    dev: Path | None = None


class SftTrainingSettings(PromptFormatSettings):
    """Supervised fine-tuning with teacher forcing."""

    steps: Count
    batch_size: Count = 32
    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 0.0
    adam_eps: Positive = 1e-8
    schedule: Schedule = Schedule.LINEAR
    warmup_ratio: Share = 0.05
    max_grad_norm: Positive = 1.0
    max_prompt_tokens: Count = 1024
    cut_prompt: bool = False
    max_response_tokens: Count = 200
    eval_every_steps: Count = 200


class SftConfig(RuntimeSettings, NetworkSettings):
    """Settings of `rl-client sft`."""

    model: Path
    from_scratch: bool = False
    data: SftDataSettings
    training: SftTrainingSettings
    checkpoint: CheckpointSettings = CheckpointSettings()


class GenerationSettings(Settings):
    """How responses are sampled."""

    greedy: bool = False
    max_new_tokens: Count = 200
    temperature: Positive = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    samples_per_prompt: Count = 1
    batch_tokens: Count | None = None

    @model_validator(mode="after")
    def _greedy_draws_nothing(self) -> Self:
        if self.greedy and (self.temperature != 1.0 or self.top_k or self.samples_per_prompt > 1):
            raise ValueError("greedy decoding takes no temperature, top_k or samples_per_prompt")
        return self


def read_api_key(variable: str | None) -> str | None:
    """What a variable of the environment holds; None where none is named.

    Raises:
        ValueError: It is not set.
    """
    if variable is None:
        return None
    if key := os.environ.get(variable):
        return key
    raise ValueError(f"api_key_env names {variable}, which is not set in the environment")


class ServiceSettings(Settings):
    """The reward service and how patiently it is asked."""

    url: str
    client_job: str | None = None
    api_key_env: str | None = None
    timeout_s: Positive = 30.0
    retry_for_s: NotNegative = 300.0
    max_items_per_request: Count = 128
    max_failed_share: Share = 0.1

    @property
    def api_key(self) -> str | None:
        """The key in the environment variable that `api_key_env` names; None when it names none."""
        return read_api_key(self.api_key_env)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be a whole address, such as http://127.0.0.1:8000, not {url!r}")
        return url

    @model_validator(mode="after")
    def _key_is_set(self) -> Self:
        read_api_key(self.api_key_env)
        return self


class PpoSettings(Settings):
    """PPO with a separate value model."""

    steps: Count
    prompts_per_step: Count
    epochs: Count = 4
    minibatch_size: Count
    microbatch_size: Count | None = None
    microbatch_tokens: Count | None = None
    learning_rate: Positive = 1e-5
    value_learning_rate: Positive = 1e-5
    schedule: Schedule = Schedule.CONSTANT
    warmup_ratio: Share = 0.0
    weight_decay: NotNegative = 0.0
    adam_eps: Positive = 1e-5
    clip_range: Positive = 0.2
    value_clip_range: Positive = 0.2
    value_coefficient: Positive = 1.0
    gamma: Share = 1.0
    gae_lambda: Share = 0.95
    kl_coefficient: NotNegative = 0.1
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    max_grad_norm: Positive = 1.0
    value_warmup_steps: Annotated[int, Field(ge=0)] = 0
    max_kl: Positive | None = None
    max_kl_times: Count = 5

    @model_validator(mode="after")
    def _batches_nest(self) -> Self:
        if self.microbatch_size is not None and self.microbatch_size > self.minibatch_size:
            raise ValueError("microbatch_size is larger than minibatch_size")
        return self


class _ScoredConfig(RuntimeSettings, PromptFormatSettings):
    policy: Path
    prompts: Path
    max_prompt_tokens: Count = 1024
    cut_prompt: bool = False


class TrainConfig(_ScoredConfig, NetworkSettings):
    """Settings of `rl-client train`."""

    value: Path | None = None
    value_trunk: ValueTrunk = ValueTrunk.SEPARATE
    service: ServiceSettings | None = None
    rewards: Annotated[tuple[RewardSettings, ...], Field(min_length=1)]
    penalties: PenaltySettings = PenaltySettings()
    kl: KlSettings = KlSettings()
    generation: GenerationSettings = GenerationSettings()
    pipeline: PipelineSettings = PipelineSettings()
    ppo: PpoSettings
    checkpoint: TrainCheckpointSettings = TrainCheckpointSettings()
    diagnostics: DiagnosticsSettings = DiagnosticsSettings()
    processes: ProcessSettings = ProcessSettings()

    @property
    def responses_per_step(self) -> int:
        """B: how many responses one step samples."""
        return self.ppo.prompts_per_step * self.generation.samples_per_prompt

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_rewards(self.rewards, has_service=self.service is not None)
        check_best_metric(self.checkpoint.best_metric, [reward.name for reward in self.rewards])
        if self.value is not None and self.value_trunk is ValueTrunk.SHARED:
            raise ValueError("value names a directory, and value_trunk: shared would not read it")
        if self.generation.greedy:
            raise ValueError("generation.greedy: PPO learns from samples; greedy decoding is for evaluation")
        if self.ppo.minibatch_size > self.responses_per_step:
            raise ValueError(
                f"ppo.minibatch_size {self.ppo.minibatch_size} is larger than a step's "
                f"{self.responses_per_step} responses (prompts_per_step x samples_per_prompt)"
            )
        return self


class EvaluateConfig(_ScoredConfig):
    """Settings of `rl-client evaluate`."""

    generation: GenerationSettings = GenerationSettings(greedy=True)
    batch_size: Count = 128
    service: ServiceSettings | None = None
    rewards: tuple[RewardSettings, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_rewards(self.rewards, has_service=self.service is not None)
        if any(reward.normalization is not Normalization.NONE for reward in self.rewards):
            raise ValueError("normalization is of training: an evaluation has no running statistics")
        return self


PLACES = frozenset({"WORLD_SIZE", "LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"})
"""Environment variables by which launchers tell a process of its place among several."""


def is_launcher_told(name: str) -> bool:
    """Whether `accelerate launch` was told to use FSDP, DEEPSPEED, ..."""
    return os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true")


def launcher_fault(processes: int) -> str | None:
    """What `accelerate launch` was told and this run does not do; without GPUs it starts one process of several."""
    for name in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if is_launcher_told(name):
            return f"was told to use {name}, which this run does not know; models can be divided with FSDP"
    alone = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and PLACES.isdisjoint(os.environ)
    lone = "started one process in place of several, as it does without GPUs; use torchrun --nproc_per_node N"
    return lone if processes == 1 and alone else None


Config = TypeVar("Config", bound=RuntimeSettings)


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a settings file.

    Args:
        path: A YAML file. Relative paths in it are relative to the current directory.
        kind: Which command's settings it holds.

    Returns:
        The settings, every path that is read from checked to exist.

    Raises:
        ConfigError: With every fault of the file and its path in it: syntax, unknown or missing keys, wrong types or
            ranges, files that are not there.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError(str(path), ["must be a mapping of settings"])
    try:
        config = kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(str(path), describe(error) + missing_paths(raw)) from error
    if faults := missing_paths(raw):
        raise ConfigError(str(path), faults)
    return config
