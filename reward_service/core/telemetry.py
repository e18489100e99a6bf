"""What the core tells of its work."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one inference was like.

    Attributes:
        model: The model's name.
        items: Inputs in the batch.
        real_tokens: Their tokens.
        padded_tokens: Longest input x items.
        inference_s: How long the backend took.
        queue_s: How long each input had waited.
        scores: The sequence scores that came out, by the name of the head.
        jobs: Padded tokens that were computed for each job; empty where none are counted.
    """

    model: str
    items: int
    real_tokens: int
    padded_tokens: int
    inference_s: float
    queue_s: tuple[float, ...]
    scores: tuple[tuple[str, tuple[float, ...]], ...]
    jobs: tuple[tuple[str, int], ...] = ()


class Telemetry(Protocol):
    """Is told what happened; the web layer counts it. Called from several threads."""

    def batch_done(self, report: BatchReport) -> None:
        """A batch was inferred."""
        ...

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        """The items of one request were segmented and tokenized; `truncated` of them were cut."""
        ...
