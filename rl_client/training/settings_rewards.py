"""Settings of what becomes reward: models, local functions, and how their scores are shaped."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from rl_client.training.settings_base import Finite, Settings


class Shaping(StrEnum):
    """How a score becomes a reward, before its weight."""

    RAW = "raw"
    SIGN = "sign"
    CENTERED = "centered"
    ZSCORE = "zscore"

    @property
    def needs_calibration(self) -> bool:
        """Whether the model must publish the mean and standard deviation of its scores."""
        return self in (Shaping.CENTERED, Shaping.ZSCORE)


class RewardSettings(Settings):
    """One reward model's part in the reward."""

    model: Annotated[str, Field(min_length=1)]
    weight: Finite = 1.0
    shaping: Shaping = Shaping.RAW

    @property
    def name(self) -> str:
        """The model's name without `@version` or `@alias`."""
        return self.model.partition("@")[0]
