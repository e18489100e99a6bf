"""What every part of a settings file has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a settings file: unknown keys are faults, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
