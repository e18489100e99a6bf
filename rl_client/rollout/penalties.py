"""What a response pays for its length: sources of reward like every other, on its last token."""

from collections.abc import Sequence

from rl_client.rollout.rewards import SegmentReward, SourceRewards
from rl_client.rollout.stages import Rollout
from rl_client.training.settings_rewards import LENGTH_PENALTY, TRUNCATION_PENALTY, PenaltySettings


def penalties_of(rollout: Rollout, failed: Sequence[bool], settings: PenaltySettings) -> tuple[SourceRewards, ...]:
    """The penalties that are switched on.

    `length_penalty` counts the tokens past `free_tokens`, `truncation_penalty` is 1 for a response that was cut off at
    the length limit; each is paid at its coefficient.

    Args:
        rollout: B responses.
        failed: B, True = some source gave no score; such a response pays nothing, as it earns nothing.
        settings: The coefficients.
    """
    over = [max(0, len(offsets) - settings.free_tokens) for offsets in rollout.offsets]
    cut_off = [not finished for finished in rollout.finished]
    sources = []
    if settings.length:
        sources.append(_source(LENGTH_PENALTY, settings.length, over, rollout, failed))
    if settings.truncation:
        sources.append(_source(TRUNCATION_PENALTY, settings.truncation, cut_off, rollout, failed))
    return tuple(sources)


def _source(
    name: str, coefficient: float, amounts: Sequence[float], rollout: Rollout, failed: Sequence[bool]
) -> SourceRewards:
    segments = []
    for amount, is_failed, text, offsets in zip(amounts, failed, rollout.texts, rollout.offsets, strict=True):
        whole = SegmentReward(len(offsets) - 1, 0, len(text), float(amount), None, float(amount))
        segments.append(() if is_failed else (whole,))
    return SourceRewards(name, -coefficient, tuple(segments))
