"""From a served score to a reward: the client's own choice, so that each job can shape the same scores differently."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward_proto import Granularity, ModelInfo, ModelScore, SegmentScore
from rl_client.algorithms.token_rewards import end_token_index
from rl_client.errors import ConfigError
from rl_client.rollout.rewards import SegmentReward
from rl_client.training.settings_rewards import RewardSettings, Shaping

OK_LABEL = "ok"
"""The class that means "no error" where a classifier's winning class decides the reward's sign."""
OK_SCORE = 0.5
"""A score without a label counts as good from here on."""


@dataclass(frozen=True, slots=True)
class Shaper:
    """Turns the scores of one source into rewards.

    Attributes:
        name: The source's name.
        weight: Factor on every reward.
        shaping: The rule.
        mean: Of the source's scores in training; used by `centered` and `zscore`.
        std: Their standard deviation, > 0; used by `zscore`.
    """

    name: str
    weight: float
    shaping: Shaping
    mean: float = 0.0
    std: float = 1.0

    def reward(self, score: float, label: str | None) -> float:
        """`weight * shape(score)`; see `shape`."""
        return self.weight * self.shape(score, label)

    def shape(self, score: float, label: str | None) -> float:
        """The score by the rule, before the weight.

        Args:
            score: P(no error) in [0, 1] of a classifier, the raw scalar of a regressor.
            label: The classifier's winning class; None for a regressor.
        """
        if self.shaping is Shaping.SIGN:
            good = label == OK_LABEL if label is not None else score >= OK_SCORE
            return 1.0 if good else -1.0
        if self.shaping is Shaping.CENTERED:
            return score - self.mean
        if self.shaping is Shaping.ZSCORE:
            return (score - self.mean) / self.std
        return score


def make_shapers(rewards: Sequence[RewardSettings], models: Mapping[str, ModelInfo]) -> tuple[Shaper, ...]:
    """One shaper for each source.

    Args:
        rewards: From the settings.
        models: What the service says of each served model, by name; functions have none.

    Raises:
        ConfigError: With every shaping that its source does not allow.
    """
    shapers = []
    faults = []
    for index, reward in enumerate(rewards):
        info = models.get(reward.name) if reward.function is None else None
        calibration = reward.calibration or (info.calibration if info else None)
        where = f"rewards.{index}.shaping: {reward.shaping.value} of {reward.name}"
        is_classifier = info is not None and info.kind.is_classifier
        if reward.shaping.needs_calibration and calibration is None:
            faults.append(f"{where} needs a calibration, and the model has none")
        elif reward.shaping is Shaping.PROBABILITY and not is_classifier:
            faults.append(f"{where} needs a classifier; a regressor's scores are no probabilities")
        elif reward.shaping is Shaping.SIGN and info is not None and is_classifier and OK_LABEL not in info.labels:
            faults.append(f"{where} needs a class named {OK_LABEL!r}; it has {', '.join(info.labels)}")
        elif calibration is None:
            shapers.append(Shaper(reward.name, reward.weight, reward.shaping))
        else:
            shapers.append(Shaper(reward.name, reward.weight, reward.shaping, calibration.mean, calibration.std))
    if faults:
        raise ConfigError("settings", faults)
    return tuple(shapers)


def segments_of(score: ModelScore) -> list[SegmentScore]:
    """The segments of a score that is no error."""
    if score.segments is None:
        raise ValueError(f"{score.model} gave no score: {score.error}")
    return score.segments


def segment_rewards(score: ModelScore, shaper: Shaper, offsets: Sequence[tuple[int, int]]) -> tuple[SegmentReward, ...]:
    """Each segment, its shaped score, and the token that it falls on.

    That is the sampled token that holds the segment's last character; of a sequence-granularity model the last sampled
    token, the eos included, also where the response is blank and there is a score without a segment.

    Args:
        score: Not an error.
        shaper: That of the score's source.
        offsets: T half-open code-point ranges, one a sampled token.

    Source: arXiv 2306.01693.
    """
    last = len(offsets) - 1
    segments = segments_of(score)
    if score.granularity is Granularity.SEQUENCE:
        if segments:
            return (_segment_reward(segments[-1], shaper, last),)
        if score.sequence_score is not None:
            return (_segment_reward(SegmentScore(start=0, end=0, score=score.sequence_score), shaper, last),)
        return ()
    return tuple(_segment_reward(segment, shaper, end_token_index(offsets, segment.end)) for segment in segments)


def _segment_reward(segment: SegmentScore, shaper: Shaper, token: int) -> SegmentReward:
    shaped = shaper.shape(segment.score, segment.label)
    return SegmentReward(token, segment.start, segment.end, segment.score, segment.label, shaped)
