"""Settings of what a run tells about itself beside `metrics.jsonl`; none changes what it learns."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rl_client.training.settings_base import Count, Settings

Number = Annotated[int, Field(ge=0)]


class WandbMode(StrEnum):
    """Where Weights & Biases keeps a run."""

    ONLINE = "online"
    OFFLINE = "offline"


class WandbSettings(Settings):
    """A run at Weights & Biases, of the same figures."""

    project: Annotated[str, Field(min_length=1)]
    entity: str | None = None
    name: str | None = None
    mode: WandbMode | None = None


class DiagnosticsSettings(Settings):
    """Where figures go, and how many samples are shown."""

    tensorboard: bool = True
    wandb: WandbSettings | None = None
    samples_every_steps: Number = 10
    samples: Count = 16
    exact_kl_tokens: Number = 256
