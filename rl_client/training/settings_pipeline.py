"""What of a PPO step goes on at the same time."""

from typing import Annotated

from pydantic import Field

from rl_client.training.settings_base import Settings, Share


class PipelineSettings(Settings):
    """How far scoring, sampling and training overlap. `staleness` changes results, the rest timing alone."""

    staleness: Annotated[int, Field(ge=0, le=1)] = 0
    concurrent_requests: Annotated[int, Field(ge=0)] = 4
    send_share: Annotated[Share, Field(gt=0)] = 0.25
