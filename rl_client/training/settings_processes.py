"""Settings of a run of several processes; none changes what it learns, but for the last digits of sums."""

from enum import StrEnum

from rl_client.training.settings_base import Settings


class Scoring(StrEnum):
    """Who asks for scores."""

    OWN = "own"
    GATHERED = "gathered"


class ProcessSettings(Settings):
    """Who asks the service, where several processes train."""

    scoring: Scoring = Scoring.OWN
