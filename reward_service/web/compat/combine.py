"""One scalar for each response, from the scores of the served models. A score that is missing is never a 0."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request

from reward_proto.errors import RETRYABLE
from reward_service.compat_settings import Compat
from reward_service.core.scorer import Scorer
from reward_service.domain import ItemScore, Outcome, TextItem
from reward_service.errors import (
    InvalidRequestError,
    ModelFailedError,
    PayloadTooLargeError,
    ServiceError,
    UnknownModelError,
)
from reward_service.ledger.answer import Ledger
from reward_service.web.asker import read_asker
from reward_service.web.body import while_connected
from reward_service.web.compat.texts import Sample, to_item


@dataclass(frozen=True, slots=True)
class Rewards:
    """What the models say of some responses.

    Attributes:
        values: The weighted sum for each response, in order.
        by_model: Each model's sequence scores, in the same order.
        outcome: What the scoring cost; None if there was nothing to score.
    """

    values: list[float]
    by_model: dict[str, list[float]]
    outcome: Outcome | None = None

    @property
    def input_tokens(self) -> int:
        """Tokens of the inputs, over all models."""
        return 0 if self.outcome is None else self.outcome.input_tokens


class Combiner:
    """Scores samples and combines the scores.

    Args:
        scorer: Gives the scores.
        settings: The weights, and how texts become items.
        max_items: Most samples of one request.
        ledger: Keeps what was answered, if there is one.
    """

    def __init__(self, scorer: Scorer, settings: Compat, max_items: int, ledger: Ledger | None = None) -> None:
        self._scorer = scorer
        self.settings = settings
        self._max_items = max_items
        self._ledger = ledger

    async def score(self, request: Request, samples: Sequence[Sample], paths: Sequence[str]) -> Rewards:
        """Score all samples, or fail as a whole.

        Args:
            request: Whose caller may leave.
            samples: Any number up to `max_items`.
            paths: Where each stands in the request, for messages.

        Raises:
            ServiceError: One score could not be given; where several failed, one that no retry mends goes first.
        """
        asker = read_asker(request)
        weights = self._weights()
        if len(samples) > self._max_items:
            raise PayloadTooLargeError(f"{len(samples)} texts are over {self._max_items}", max_items=self._max_items)
        if not samples:
            return Rewards([], {name: [] for name in weights})
        items = [to_item(sample, path, self.settings) for sample, path in zip(samples, paths, strict=True)]
        work = self._scorer.score(items, list(weights), None, request.state.client_job)
        outcome = await while_connected(request, work)
        by_model = _scores(outcome, items, paths, self.settings.empty_score)
        rewards = Rewards(_weighted_sums(by_model, weights), by_model, outcome)
        if self._ledger is not None:
            self._ledger.record(asker, [str(index) for index in range(len(items))], items, outcome.models)
        return rewards

    def _weights(self) -> Mapping[str, float]:
        if self.settings.weights:
            return self.settings.weights
        served = list(self._scorer.models)
        if len(served) != 1:
            raise UnknownModelError(
                "several models are served and compat.weights does not say how they make one reward", served=served
            )
        return {served[0]: 1.0}


def _scores(
    outcome: Outcome, items: Sequence[TextItem], paths: Sequence[str], empty_score: float | None
) -> dict[str, list[float]]:
    errors: list[ServiceError] = []
    by_model: dict[str, list[float]] = {}
    for model in outcome.models:
        scores = by_model[model.card.name] = []
        for item, path, result in zip(items, paths, model.results, strict=True):
            score = _score(result, item, empty_score)
            if isinstance(score, ServiceError):
                errors.append(_placed(score, path, model.card.name))
            else:
                scores.append(score)
    if errors:
        raise next((error for error in errors if error.code not in RETRYABLE), errors[0])
    return by_model


def _score(result: ItemScore | ServiceError, item: TextItem, empty_score: float | None) -> float | ServiceError:
    if isinstance(result, ServiceError):
        return result
    if result.sequence_score is not None:
        return result.sequence_score
    if item.response.strip():
        return ModelFailedError("the model found no segment in the response")
    if empty_score is None:
        return InvalidRequestError("the response is empty, and compat.empty_score is not set")
    return empty_score


def _placed(error: ServiceError, path: str, model: str) -> ServiceError:
    details = {**error.details, "path": path, "model": model}
    return type(error)(f"{path}: {model}: {error.message}", retry_after_s=error.retry_after_s, **details)


def _weighted_sums(by_model: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> list[float]:
    rows = zip(*by_model.values(), strict=True)
    sums = [sum(weights[name] * score for name, score in zip(by_model, row, strict=True)) for row in rows]
    if not all(map(math.isfinite, sums)):
        raise ModelFailedError("the weighted sum of the scores is not finite")
    return sums
