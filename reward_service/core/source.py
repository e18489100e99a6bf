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

    @property
    def free_items(self) -> int:
        """Items that may still be sent."""
        ...

    def start(self) -> None:
        """Begin to score."""
        ...

    def close(self, timeout_s: float) -> None:
        """End; what still waits fails."""
        ...

    async def score(self, items: Sequence[TextItem], deadline_s: float | None) -> SourceOutcome:
        """Score items; each failure stands in its own place.

        Args:
            items: At least one.
            deadline_s: On the monotonic clock. What is not there by then is `DeadlineExceededError` in its place.
        """
        ...


def check_room(source: ScoreSource, items: int, deadline_s: float | None) -> None:
    """Refuse a request before it costs anything.

    Raises:
        OverloadedError: The queue is full, or will take longer than the caller waits.
    """
    wait_s = source.estimated_wait_s
    if items > source.free_items:
        raise OverloadedError("the queue is full", retry_after_s=wait_s, model=source.name)
    if deadline_s is not None and wait_s > (left_s := deadline_s - time.monotonic()):
        raise OverloadedError(
            f"the queue takes about {wait_s:.1f} s, the deadline is {left_s:.1f} s away",
            retry_after_s=wait_s,
            model=source.name,
        )


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
