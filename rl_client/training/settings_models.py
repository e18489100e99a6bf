"""How networks are trained: adapters, memory, compilation, and whose body the value model reads with."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from rl_client.training.settings_base import Count, Settings


class ValueTrunk(StrEnum):
    """Whose body the value head stands on."""

    SEPARATE = "separate"
    SHARED = "shared"


class LoraSettings(Settings):
    """Low-rank adapters: the base's weights stay, small matrices beside them learn."""

    rank: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class NetworkSettings(Settings):
    """What `sft` and `train` may do to networks; all but `lora` changes no more than rounding."""

    lora: LoraSettings | None = None
    gradient_checkpointing: bool = False
    compile: bool = False


class PromptFormatSettings(Settings):
    """How a prompt's text becomes tokens."""

    chat_template: bool = False
    system_prompt: str | None = None

    @model_validator(mode="after")
    def _system_prompt_has_a_place(self) -> Self:
        if self.system_prompt is not None and not self.chat_template:
            raise ValueError("system_prompt needs chat_template: true")
        return self
