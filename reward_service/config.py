"""Settings of the service. A file is read whole, checked whole, and every fault in it is reported at once."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from reward_service.annotate_settings import AnnotateSettings
from reward_service.cache_settings import CacheSettings
from reward_service.compat_settings import Compat
from reward_service.errors import ConfigError
from reward_service.fairness_settings import FairnessSettings
from reward_service.ledger_settings import LedgerSettings
from reward_service.operations_settings import Auth, Drain, Tracing
from reward_service.section import Section
from reward_service.settings_faults import DEVICE_PATTERN, REFERENCE_PATTERN, SOURCE_TAG, UNKNOWN_SOURCE, describe
from reward_service.text_rewards.settings import (
    CallableSettings,
    JudgeSettings,
    PerspectiveSettings,
)

Device = Annotated[str, Field(pattern=DEVICE_PATTERN)]

S = TypeVar("S", bound=BaseModel)


class Runtime(StrEnum):
    """Which library computes a model's logits."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """In which numbers."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


PRECISIONS: dict[Runtime, frozenset[Precision]] = {
    Runtime.AUTO: frozenset(Precision),
    Runtime.TORCH: frozenset({Precision.FP32, Precision.BF16}),
    Runtime.ONNXRUNTIME: frozenset({Precision.FP32, Precision.INT8}),
    Runtime.OPENVINO: frozenset(Precision),
}
"""What each runtime can compute in."""


class ModelSettings(Section):
    """One model of the store to serve.

    Attributes:
        source: Where the scores come from; `store` when absent.
        name: `name`, `name@alias` or `name@version` in the store.
        runtime: `auto` takes the fastest on this machine of those that passed the gate at an export.
        precision: fp32 when absent, any for `auto`. A lower one needs an export that passed the gate.
        device: `cpu`, `cuda` or `cuda:N`.
        devices: Several, in place of `device`: the model runs side by side on all of them, with one queue.
        replicas: How many times the model runs on each device.
        cache: Whether its scores are kept, where the service has a cache.
    """

    source: Literal["store"] = "store"
    name: str = Field(pattern=REFERENCE_PATTERN)
    runtime: Runtime = Runtime.AUTO
    precision: Precision | None = None
    device: Device = "cpu"
    devices: tuple[Device, ...] = ()
    replicas: int = Field(default=1, ge=1, le=64)
    cache: bool = True

    @model_validator(mode="after")
    def _runtime_can(self) -> "ModelSettings":
        if self.precision is not None and self.precision not in PRECISIONS[self.runtime]:
            raise ValueError(f"runtime {self.runtime} does not compute in {self.precision}")
        if self.devices and "device" in self.model_fields_set:
            raise ValueError("device and devices exclude each other")
        if set(self.all_devices) != {"cpu"} and (self.runtime is Runtime.OPENVINO or self.precision is Precision.INT8):
            raise ValueError("openvino and int8 compute on the CPU only")
        return self

    @property
    def all_devices(self) -> tuple[str, ...]:
        """Where the model runs, one place for each device."""
        return self.devices or (self.device,)

    @property
    def served_name(self) -> str:
        """The name without alias or version."""
        return self.name.partition("@")[0]


PLACES = ("WORLD_SIZE", "LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables by which launchers tell a process of its place among several."""


def _kind_of_entry(entry: Any) -> str:
    given = entry.get("source", "store") if isinstance(entry, dict) else getattr(entry, "source", "store")
    return f"{SOURCE_TAG}{given}"


AnyModelSettings = Annotated[
    Annotated[ModelSettings, Tag(f"{SOURCE_TAG}store")]
    | Annotated[PerspectiveSettings, Tag(f"{SOURCE_TAG}perspective")]
    | Annotated[JudgeSettings, Tag(f"{SOURCE_TAG}judge")]
    | Annotated[CallableSettings, Tag(f"{SOURCE_TAG}callable")],
    Discriminator(
        _kind_of_entry,
        custom_error_type=UNKNOWN_SOURCE,
        custom_error_message="must be store, perspective, judge or callable",
    ),
]
"""One entry of `models`."""


class Limits(Section):
    """What one caller, and all of them together, may ask for.

    Attributes:
        max_items: Items of one request.
        max_body_bytes: Size of one request's body.
        max_queue_items: Inputs of one model that may be tokenized or wait at a time; up to twice as many where a job
            has less than its share of them.
        max_queue_tokens: Their tokens, likewise.
        max_pending_bytes: Of the bodies of all requests together that are not answered.
        receive_timeout_s: How long a request's head may take to arrive, then its body; a reply's end to be read.
        max_client_jobs: Different `client_job` labels in the metrics; further jobs share `other`.
    """

    max_items: int = Field(default=256, ge=1)
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    max_queue_items: int = Field(default=4096, ge=1)
    max_queue_tokens: int = Field(default=1024 * 1024, ge=1)
    max_pending_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    receive_timeout_s: float = Field(default=30.0, gt=0)
    max_client_jobs: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _a_request_fits(self) -> "Limits":
        if self.max_queue_items < self.max_items:
            raise ValueError(f"max_queue_items {self.max_queue_items} is below max_items {self.max_items}")
        if self.max_pending_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_pending_bytes {self.max_pending_bytes} is below max_body_bytes {self.max_body_bytes}"
            )
        return self


class Batching(Section):
    """How work is put together and spread over the cores.

    Attributes:
        max_batch_tokens: Padded tokens of one batch: its longest input x its inputs. A longer input runs alone. The
            default suits a CPU, whose caches large batches leave; raise it on a GPU.
        max_padding: Share of a batch's tokens that may be padding, in [0, 1). On a GPU there is more of it where the
            measured cost of a further batch is higher.
        threads: Of each model on the CPU, divided into lanes that run batches side by side.
        encode_threads: Of the pool that segments and tokenizes.
    """

    max_batch_tokens: int = Field(default=2048, ge=1)
    max_padding: float = Field(default=0.05, ge=0, lt=1)
    threads: int = Field(default=2, ge=1)
    encode_threads: int = Field(default=2, ge=1)


class ServiceSettings(Section):
    """The file that `reward-service serve --config` reads.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which the log names.
        store: Directory of published models.
        models: What to serve; one version of each name.
        limits: Bounds on requests and queues.
        batching: Batches and threads.
        auth: Keys.
        fairness: Weights and quotas of training jobs.
        cache: Scores that were computed before.
        ledger: Where every score is recorded.
        drain: The end.
        compat: The protocols of existing trainers.
        ui: Whether `/ui` shows a page to try the models with.
        annotate: The page `/annotate`, for people's feedback.
        log_level: Least level that is logged to stderr.
        log_format: Text for people, or one JSON object a line.
        tracing: Traces.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    store: Path
    models: tuple[AnyModelSettings, ...]
    limits: Limits = Limits()
    batching: Batching = Batching()
    auth: Auth = Auth()
    fairness: FairnessSettings = FairnessSettings()
    cache: CacheSettings = CacheSettings()
    ledger: LedgerSettings = LedgerSettings()
    drain: Drain = Drain()
    compat: Compat = Compat()
    ui: bool = False
    annotate: AnnotateSettings = AnnotateSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    tracing: Tracing = Tracing()

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[AnyModelSettings, ...]) -> tuple[AnyModelSettings, ...]:
        if not models:  # Not `min_length`, which counts valid entries and so complains of a faulty one twice.
            raise ValueError("at least one model is needed")
        names = [model.served_name for model in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"served twice: {', '.join(twice)}")
        return models


def load_settings(path: Path, schema: type[S]) -> S:
    """Read and check a YAML file.

    Args:
        path: The file.
        schema: What it must look like.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has faults; every fault is listed with its place.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror or error}"]) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(str(path), [f"is not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), ["the file must hold a mapping"])
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ConfigError(str(path), describe(error)) from error


def read_key(variable: str) -> str:
    """A secret from the environment.

    Args:
        variable: Its name.

    Raises:
        ValueError: It is not set, or blank.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable} is not set")
    return key


def is_lone_process_of_several() -> bool:
    """Whether `accelerate launch` was told to start several processes and started this one alone.

    Without GPUs it does so unless it is given an MPI hostfile. It then says where the processes would meet, and neither
    how many they are nor which one this is.
    """
    return {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and os.environ.keys().isdisjoint(PLACES)
