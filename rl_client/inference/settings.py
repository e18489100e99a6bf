"""Settings of `rl-client generate`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from reward_proto import Granularity
from rl_client.training.config import GenerationSettings, RuntimeSettings, ServiceSettings
from rl_client.training.settings_base import Count
from rl_client.training.settings_models import PromptFormatSettings
from rl_client.training.settings_rewards import RewardSettings, check_rewards


class Selection(StrEnum):
    """What is chosen at a time."""

    RESPONSE = "response"
    SEGMENT = "segment"


class GenerateConfig(RuntimeSettings, PromptFormatSettings):
    """Settings of `rl-client generate`."""

    policy: Path
    prompts: Path
    max_prompt_tokens: Count = 1024
    cut_prompt: bool = False
    generation: GenerationSettings = GenerationSettings(samples_per_prompt=8)
    select: Selection = Selection.RESPONSE
    granularity: Granularity = Granularity.SENTENCE
    max_segment_tokens: Count = 64
    service: ServiceSettings
    rewards: Annotated[tuple[RewardSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _there_is_a_choice(self) -> Self:
        check_rewards(self.rewards, has_service=True)
        if self.generation.samples_per_prompt < 2:
            raise ValueError("generation.samples_per_prompt: a choice needs 2 candidates or more")
        if self.granularity is Granularity.SEQUENCE:
            raise ValueError("granularity: sequence is the whole response; use select: response")
        return self
