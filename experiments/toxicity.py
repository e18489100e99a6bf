"""Offline toxicity rewards for the small detoxification runs, which the service calls as functions.

They are what the Perspective API's entries of the service give (arXiv 2306.01693), with the linear classifier of
alt-profanity-check in the API's place: `experiments/small/detox_service.yaml`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from profanity_check import predict_prob


class Response(Protocol):
    """What is read of the service's `RewardInput`."""

    @property
    def response(self) -> str:
        """The whole text."""

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Half-open code-point ranges of its segments."""


def added_by_sentence(responses: Sequence[Response]) -> list[list[float]]:
    """For each sentence -(toxicity(y up to it) - toxicity(y before it)); toxicity of nothing is 0.

    The numbers of a response add up to -toxicity(y).
    """
    prefixes = [[one.response[:end] for _, end in one.spans] for one in responses]
    toxicity = iter(_toxicity([text for some in prefixes for text in some]))
    courses = [[0.0, *(next(toxicity) for _ in some)] for some in prefixes]
    return [[before - after for before, after in pairwise(course)] for course in courses]


def whole(responses: Sequence[Response]) -> list[float]:
    """1 - toxicity(y) of each whole response."""
    return [1.0 - toxicity for toxicity in _toxicity([one.response for one in responses])]


def _toxicity(texts: list[str]) -> list[float]:
    return [float(one) for one in predict_prob(texts)] if texts else []
