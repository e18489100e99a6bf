"""Settings of what becomes reward: served models, local functions, penalties, and how scores are shaped."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from reward_proto import Granularity
from rl_client.training.settings_base import Count, Finite, NotNegative, Positive, Settings

LENGTH_PENALTY, TRUNCATION_PENALTY = "length_penalty", "truncation_penalty"
"""Under these names the penalties are logged; no reward may have one of them."""


class Shaping(StrEnum):
    """How a score becomes a reward, before its weight."""

    RAW = "raw"
    PROBABILITY = "probability"
    SIGN = "sign"
    CENTERED = "centered"
    ZSCORE = "zscore"

    @property
    def needs_calibration(self) -> bool:
        """Whether the mean and standard deviation of the source's scores must be known."""
        return self in (Shaping.CENTERED, Shaping.ZSCORE)


class Normalization(StrEnum):
    """What running statistics of a source's shaped scores do to them, before the weight."""

    NONE = "none"
    SCALE = "scale"
    ZSCORE = "zscore"


class CalibrationSettings(Settings):
    """Mean and standard deviation of a source's scores, in place of what its model publishes."""

    mean: Finite
    std: Positive


class RewardSettings(Settings):
    """One source's part in the reward: a served model, or a function of this process."""

    model: Annotated[str, Field(min_length=1)] | None = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    weight: Finite = 1.0
    shaping: Shaping = Shaping.RAW
    normalization: Normalization = Normalization.NONE
    calibration: CalibrationSettings | None = None
    granularity: Granularity = Granularity.SEQUENCE
    batch_size: Count | None = None
    concurrency: Count = 1
    timeout_s: Positive = 60.0

    @property
    def name(self) -> str:
        """The model's name without `@version` or `@alias`; of a function its own, without its module."""
        if self.function is not None:
            return self.function.partition(":")[2].rpartition(".")[2]
        return (self.model or "").partition("@")[0]

    @model_validator(mode="after")
    def _is_one_source(self) -> Self:
        if (self.model is None) == (self.function is None):
            raise ValueError("name either a model or a function")
        only_local = {"granularity", "batch_size", "concurrency", "timeout_s"} & self.model_fields_set
        if self.model is not None and only_local:
            raise ValueError(f"only a function takes {', '.join(sorted(only_local))}")
        if self.function is not None and self.shaping is Shaping.PROBABILITY:
            raise ValueError("probability is for served classifiers; a function's numbers are taken as they are by raw")
        return self


class PenaltySettings(Settings):
    """What a response pays for its length, on its last token."""

    length: NotNegative = 0.0
    free_tokens: Annotated[int, Field(ge=0)] = 0
    truncation: NotNegative = 0.0


def check_rewards(rewards: tuple[RewardSettings, ...], *, has_service: bool) -> None:
    """Check what the sources have to be together.

    Raises:
        ValueError: If a name is given twice or is a penalty's, or a model is asked for and there is no service.
    """
    names = [reward.name for reward in rewards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"rewards name a model more than once: {', '.join(twice)}")
    if taken := sorted({LENGTH_PENALTY, TRUNCATION_PENALTY} & set(names)):
        raise ValueError(f"rewards cannot be called {', '.join(taken)}: the penalties are")
    if not has_service and any(reward.model for reward in rewards):
        raise ValueError("rewards need a service")
