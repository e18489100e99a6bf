"""From a served score to a reward: the client's own choice, so that each job can shape the same scores differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward_proto import ModelInfo, ModelScore, SegmentScore
from rl_client.errors import ConfigError
from rl_client.training.settings_rewards import RewardSettings, Shaping

OK_LABEL = "ok"
"""The class that means "no error" where a classifier's winning class decides the reward's sign."""
OK_SCORE = 0.5
"""A score without a label counts as good from here on."""


@dataclass(frozen=True, slots=True)
class Shaper:
    """Turns the scores of one model into rewards.

    Attributes:
        name: The model's name.
        weight: Factor on every reward.
        shaping: The rule.
        mean: Of the model's scores in training; used by `centered` and `zscore`.
        std: Their standard deviation, > 0; used by `zscore`.
    """

    name: str
    weight: float
    shaping: Shaping
    mean: float = 0.0
    std: float = 1.0

    def reward(self, score: float, label: str | None) -> float:
        """`weight * shape(score)`.

        Args:
            score: P(no error) in [0, 1] of a classifier, the raw scalar of a regressor.
            label: The classifier's winning class; None for a regressor.
        """
        if self.shaping is Shaping.SIGN:
            good = label == OK_LABEL if label is not None else score >= OK_SCORE
            return self.weight * (1.0 if good else -1.0)
        if self.shaping is Shaping.CENTERED:
            return self.weight * (score - self.mean)
        if self.shaping is Shaping.ZSCORE:
            return self.weight * (score - self.mean) / self.std
        return self.weight * score


def make_shapers(rewards: Sequence[RewardSettings], models: Mapping[str, ModelInfo]) -> tuple[Shaper, ...]:
    """One shaper for each reward model.

    Args:
        rewards: From the settings.
        models: What the service says of each, by name.

    Raises:
        ConfigError: With every shaping that its model does not allow.
    """
    shapers = []
    faults = []
    for index, reward in enumerate(rewards):
        info = models[reward.name]
        where = f"rewards.{index}.shaping: {reward.shaping.value} of {reward.name}"
        if reward.shaping.needs_calibration and info.calibration is None:
            faults.append(f"{where} needs a calibration, and the model has none")
        elif reward.shaping is Shaping.SIGN and info.kind.is_classifier and OK_LABEL not in info.labels:
            faults.append(f"{where} needs a class named {OK_LABEL!r}; it has {', '.join(info.labels)}")
        elif info.calibration is None:
            shapers.append(Shaper(reward.name, reward.weight, reward.shaping))
        else:
            calibration = info.calibration
            shapers.append(Shaper(reward.name, reward.weight, reward.shaping, calibration.mean, calibration.std))
    if faults:
        raise ConfigError("settings", faults)
    return tuple(shapers)


def segments_of(score: ModelScore) -> list[SegmentScore]:
    """The segments of a score that is no error."""
    if score.segments is None:
        raise ValueError(f"{score.model} gave no score: {score.error}")
    return score.segments
