"""The seam between the service and the rewards that read the text itself."""

import logging
import math
from collections.abc import Sequence
from typing import Protocol

from reward_service.domain import ItemScore, ModelCard, Segmented
from reward_service.errors import ModelFailedError, ServiceError

logger = logging.getLogger(__name__)

Result = ItemScore | ServiceError


class TextReward(Protocol):
    """Scores responses from their text. Its coroutines run on the loop of the `TextSource` that owns it."""

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        """Score responses.

        Args:
            responses: At least one. Without segments only where the model's granularity is `sequence`.

        Returns:
            A score or an error for each, in order. An exception stands for all of them.
        """
        ...

    async def close(self) -> None:
        """Free what it holds; it is not used afterwards."""
        ...


async def ask(reward: TextReward, card: ModelCard, responses: Sequence[Segmented]) -> list[Result]:
    """A checked result for each response; where a call for several fails, each is asked for alone.

    Args:
        reward: Gives the scores.
        card: The model.
        responses: At least one.
    """
    try:
        results = list(await reward.score(responses))
        if len(results) != len(responses):
            raise ModelFailedError(f"the reward gave {len(results)} results for {len(responses)} responses")
    except (Exception, SystemExit) as error:  # A reward that exits would end the loop, and leave its callers waiting.
        if len(responses) > 1:
            logger.warning("model %s failed on %d responses; asking one by one", card.name, len(responses))
            return [result for one in responses for result in await ask(reward, card, [one])]
        if isinstance(error, ServiceError):
            return [error]
        logger.exception("model %s failed on a response", card.name)
        return [ModelFailedError(f"the reward failed: {type(error).__name__}")]
    return [check_result(card, one, result) for one, result in zip(responses, results, strict=True)]


def check_result(card: ModelCard, response: Segmented, result: Result) -> Result:
    """A result as it is, or the error of one that cannot be meant.

    Args:
        card: The model.
        response: What was scored.
        result: What the reward gave for it.
    """
    if isinstance(result, ServiceError):
        return result
    if tuple(scored.span for scored in result.segments) != response.spans:
        return ModelFailedError(
            f"the reward scored {len(result.segments)} segments of {len(response.spans)}, or other ones"
        )
    if result.sequence_score is None:
        return ModelFailedError("the reward gave no score for the whole response")
    scores = [*(scored.score for scored in result.segments), result.sequence_score]
    if not all(math.isfinite(score) for score in scores):
        return ModelFailedError("the reward gave NaN or infinity for this item")
    if card.head.kind.is_classifier and not all(0.0 <= score <= 1.0 for score in scores):
        return ModelFailedError("the reward gave a score outside [0, 1], and its model is a classifier")
    return result
