"""A batch that was run: what came out of it, what it cost, and who waits for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_service.core.submission import Entry, HeadScores
from reward_service.core.telemetry import BatchReport
from reward_service.domain import Head, ItemScore
from reward_service.errors import ModelFailedError


@dataclass(frozen=True, slots=True)
class Failure:
    """A batch that could not be run."""

    entries: Sequence[Entry]
    error: Exception


@dataclass(frozen=True, slots=True)
class Inference:
    """A batch that was run.

    Attributes:
        entries: Its items, at least one.
        logits: Of them all, as `core.backend.Backend.infer` gives them.
        begin_s: On the monotonic clock.
        took_s: In the backend.
        padded_tokens: Longest input x items.
        occupied_s: What the batch took of the backend's time, if one lane had run it: from when the backend was free
            and something waited.
    """

    entries: Sequence[Entry]
    logits: NDArray[np.float32]
    begin_s: float
    took_s: float
    padded_tokens: int
    occupied_s: float

    @property
    def real_tokens(self) -> int:
        """Tokens of the inputs."""
        return sum(entry.length_tokens for entry in self.entries)

    @property
    def padded_tokens_each(self) -> int:
        """An entry's share of what was computed."""
        return self.padded_tokens // len(self.entries)

    def settle(self, results: Sequence[HeadScores]) -> None:
        """Give each entry's result, and its share of the cost, to its caller."""
        for entry, result in zip(self.entries, results, strict=True):
            entry.submission.account(self.padded_tokens_each, self.begin_s - entry.enqueued_s, self.took_s)
            entry.settle(result)

    def report(self, model: str, heads: Sequence[Head], results: Sequence[HeadScores]) -> BatchReport:
        """What is told of it."""
        jobs = Counter(entry.job for entry in self.entries)
        return BatchReport(
            model=model,
            items=len(self.entries),
            real_tokens=self.real_tokens,
            padded_tokens=self.padded_tokens,
            inference_s=self.took_s,
            queue_s=tuple(self.begin_s - entry.enqueued_s for entry in self.entries),
            scores=tuple(
                (head.name or model, _sequence_scores(of_head))
                for head, of_head in zip(heads, zip(*results, strict=True), strict=True)
            ),
            jobs=tuple((job, items * self.padded_tokens_each) for job, items in jobs.items()),
        )


def _sequence_scores(results: Sequence[ItemScore | ModelFailedError]) -> tuple[float, ...]:
    return tuple(r.sequence_score for r in results if isinstance(r, ItemScore) and r.sequence_score is not None)
