"""The seam between the request path and whatever gives scores: an encoder on a worker, a remote API, a function."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reward_service.core.segment import segment_text
from reward_service.domain import ItemScore, ModelCard, Span, TextItem
from reward_service.errors import DeadlineExceededError, OverloadedError, ServiceError


@dataclass(frozen=True, slots=True)
class SourceOutcome:
    """What a source says of the items of a request, and what it cost.

    Attributes:
        results: For each item in order, one result for each of the source's cards.
        input_tokens: Real tokens of the inputs; 0 where the source counts none.
        padded_tokens: Tokens computed for them, padding included.
        tokenize_s: Time spent on segmenting and tokenizing.
        queue_s: Longest wait of an item.
        inference_s: Longest inference that an item was part of.
    """

    results: tuple[tuple[ItemScore | ServiceError, ...], ...]
    input_tokens: int = 0
    padded_tokens: int = 0
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0


class ScoreSource(Protocol):
    """One or several named models whose scores come from one computation."""

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """The models, in the order of each item's results."""
        ...

    @property
    def name(self) -> str:
        """What its queue and batches are called in logs and metrics."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can score."""
        ...

    @property
    def queue_items(self) -> int:
        """Items that wait."""
        ...

    @property
    def queue_tokens(self) -> int:
        """Their tokens; 0 where none are counted."""
        ...

    @property
    def estimated_wait_s(self) -> float:
        """How long what waits will take; 0 where nothing is known."""
        ...

    def start(self) -> None:
        """Begin to score."""
        ...

    def close(self, timeout_s: float) -> None:
        """End; what still waits fails."""
        ...

    async def score(self, items: Sequence[TextItem], deadline_s: float | None, job: str = "") -> SourceOutcome:
        """Score items; each failure stands in its own place.

        Args:
            items: At least one.
            deadline_s: On the monotonic clock. What is not there by then is `DeadlineExceededError` in its place. Where
                there is no room, or the deadline cannot be met, a refusal stands in every place at once.
            job: The training job that asks; empty for callers that name none.
        """
        ...


class WrappingSource:
    """Base of a source whose scores come from another's: all but `score`, and the cards where they differ, is its.

    Args:
        inner: The other source; it is started and closed with this one.
    """

    def __init__(self, inner: ScoreSource) -> None:
        self._inner = inner

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """See `ScoreSource`."""
        return self._inner.cards

    @property
    def name(self) -> str:
        """See `ScoreSource`."""
        return self._inner.name

    @property
    def alive(self) -> bool:
        """See `ScoreSource`."""
        return self._inner.alive

    @property
    def queue_items(self) -> int:
        """See `ScoreSource`."""
        return self._inner.queue_items

    @property
    def queue_tokens(self) -> int:
        """See `ScoreSource`."""
        return self._inner.queue_tokens

    @property
    def estimated_wait_s(self) -> float:
        """See `ScoreSource`."""
        return self._inner.estimated_wait_s

    def start(self) -> None:
        """See `ScoreSource`."""
        self._inner.start()

    def close(self, timeout_s: float) -> None:
        """See `ScoreSource`."""
        self._inner.close(timeout_s)


def check_deadline(model: str, wait_s: float, deadline_s: float | None) -> None:
    """Refuse what would come too late before it costs anything.

    Args:
        model: Whose queue it is.
        wait_s: How long the queue will take.
        deadline_s: On the monotonic clock.

    Raises:
        OverloadedError: The queue will take longer than the caller waits.
    """
    if deadline_s is not None and wait_s > (left_s := deadline_s - time.monotonic()):
        raise OverloadedError(
            f"the queue takes about {wait_s:.1f} s, the deadline is {left_s:.1f} s away",
            retry_after_s=wait_s,
            model=model,
        )


def refuse_all(error: ServiceError, items: int, cards: int) -> SourceOutcome:
    """One error in the place of every score of a request."""
    return SourceOutcome(((error,) * cards,) * items)


def spans_for(card: ModelCard, item: TextItem) -> tuple[Span, ...]:
    """An item's segments as a model wants them: the caller's own, or else the segmenter's.

    Raises:
        InvalidRequestError: The text cannot be divided.
    """
    own = item.segments.get(card.granularity)
    return segment_text(item.response, card.granularity, card.language) if own is None else own


def or_late(result: ItemScore | ServiceError | None) -> ItemScore | ServiceError:
    """A result, or the error of one that is not there in time."""
    return DeadlineExceededError("the caller's timeout passed") if result is None else result
