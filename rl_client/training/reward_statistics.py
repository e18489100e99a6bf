"""Running mean and spread of each source's shaped scores, for rewards of one size whatever the scores' scale is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from rl_client.algorithms.masking import MIN_STD, MaskedStatistics, masked_statistics
from rl_client.rollout.rewards import SourceRewards, place_on_tokens, response_rewards
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.settings_rewards import Normalization, RewardSettings

NOTHING = MaskedStatistics(0.0, 0.0, 0.0)


class RewardStatistics:
    """Statistics over all segments that a run has scored so far; a part of its state."""

    def __init__(self, rewards: Sequence[RewardSettings]) -> None:
        self._rules = {
            reward.name: reward.normalization for reward in rewards if reward.normalization is not Normalization.NONE
        }
        self._seen = dict.fromkeys(self._rules, NOTHING)

    def normalize(self, scored: ScoredRollout) -> ScoredRollout:
        """Take in a rollout's scores, then shift and scale its rewards by all that was seen, this rollout included.

        `scale` divides by the standard deviation, so that signs stay; `zscore` takes the mean off first. While scores
        do not vary, nothing is divided. Failed responses have no segments and so count nowhere.

        Args:
            scored: With rewards that were not normalised yet.

        Returns:
            The same with other rewards; itself where no source is normalised.
        """
        if not self._rules:
            return scored
        sources = tuple(self._normalized(source) if source.name in self._rules else source for source in scored.sources)
        rows, width = scored.token_rewards.shape
        lengths = [len(offsets) for offsets in scored.rollout.offsets]
        return replace(
            scored,
            sources=sources,
            token_rewards=place_on_tokens(sources, lengths, (rows, width)),
            rewards=response_rewards(sources, scored.failed.tolist()),
        )

    def _normalized(self, source: SourceRewards) -> SourceRewards:
        shaped = [segment.shaped for segments in source.segments for segment in segments]
        values = torch.tensor(shaped, dtype=torch.float64)
        new = masked_statistics(values, torch.ones_like(values, dtype=torch.bool))
        seen = self._seen[source.name] = MaskedStatistics.merge([self._seen[source.name], new])
        std = seen.var**0.5
        return replace(
            source,
            shift=seen.mean if self._rules[source.name] is Normalization.ZSCORE else 0.0,
            scale=std if std > MIN_STD else 1.0,
        )

    def pack(self) -> dict[str, Any]:
        """By source the count, mean and sum of squared deviations; JSON values, exact to the bit."""
        return {name: [seen.count, seen.mean, seen.squared_deviations] for name, seen in self._seen.items()}

    def unpack(self, saved: Mapping[str, Sequence[float]]) -> None:
        """Go on from a checkpoint."""
        self._seen = {name: MaskedStatistics(*saved[name]) for name in self._rules}
