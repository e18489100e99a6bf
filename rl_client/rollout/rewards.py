"""From what every source says of segments to one reward a token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_client.algorithms.token_rewards import place_rewards


@dataclass(frozen=True, slots=True)
class SegmentReward:
    """One segment's part in the reward of its response.

    Attributes:
        token: The sampled token that it falls on.
        start: First code point of the segment in the response.
        end: One past its last code point.
        score: As the source gave it.
        label: A classifier's winning class.
        shaped: The score after shaping, before normalisation and weight.
    """

    token: int
    start: int
    end: int
    score: float
    label: str | None
    shaped: float


@dataclass(frozen=True, slots=True)
class SourceRewards:
    """What one source (a model, a function, a penalty) says of every response of a rollout.

    Attributes:
        name: The source's.
        weight: Factor on every reward.
        segments: For each response its segments; none where the response failed.
        shift: Taken from every shaped score, then
        scale: divides it, > 0. Running normalisation sets them.
    """

    name: str
    weight: float
    segments: tuple[tuple[SegmentReward, ...], ...]
    shift: float = 0.0
    scale: float = 1.0

    def reward(self, segment: SegmentReward) -> float:
        """What PPO gets for a segment: `weight * (shaped - shift) / scale`."""
        return self.weight * ((segment.shaped - self.shift) / self.scale)


def place_on_tokens(sources: Sequence[SourceRewards], lengths_tokens: Sequence[int], shape: tuple[int, int]) -> Tensor:
    """The rewards of all sources on the tokens of every response; what meets on one token adds up.

    Args:
        sources: K of them, each with B responses.
        lengths_tokens: B numbers of sampled tokens, eos included.
        shape: (B, T).

    Returns:
        [B, T] float32, 0 where no segment ends.
    """
    placed = torch.zeros(shape, dtype=torch.float32)
    for source in sources:
        for row, segments in enumerate(source.segments):
            if segments:
                tokens = [segment.token for segment in segments]
                rewards = [source.reward(segment) for segment in segments]
                placed[row, : lengths_tokens[row]] += place_rewards(lengths_tokens[row], tokens, rewards)
    return placed


def response_rewards(
    sources: Sequence[SourceRewards], failed: Sequence[bool]
) -> Mapping[str, tuple[float | None, ...]]:
    """By source, for each response, the sum of its rewards; None where it failed."""
    return {
        source.name: tuple(
            None if is_failed else math.fsum(source.reward(segment) for segment in segments)
            for segments, is_failed in zip(source.segments, failed, strict=True)
        )
        for source in sources
    }
