"""What a model is taught and how it is judged: segments' classes, or pairs of responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reward_proto.models import Calibration
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, Head, ItemScore
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.figures import Metrics, pair_metrics, span_metrics, weighted_loss
from reward_service.training.labels import IGNORED
from reward_service.training.losses import pairwise_loss, span_loss
from reward_service.training.read_out import read_tokens
from reward_service.training.scoring import scalars, score_all

CALIBRATION_RESPONSES = 2000
"""Training responses whose scores give the calibration: the first so many."""

_SMALLEST_STD = 1e-6


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How a model does on the held-out examples.

    Attributes:
        metrics: Figures by name.
        loss: What training makes small, here; None where nothing is held out that counts.
    """

    metrics: Metrics
    loss: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """One head's held-out examples and the scores of their responses, in order."""

    examples: Sequence[SpanExample] | Sequence[PairExample]
    scores: Sequence[ItemScore]


class Objective(Protocol):
    """A set of training examples with their loss, and held-out ones with their figures.

    A batch may be spread over processes and micro-batches. `total` of the whole batch and `loss` of each part give
    parts that add up to the batch's true mean.
    """

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example's longest input."""
        ...

    def total(self, indices: Sequence[int]) -> float:
        """What the loss of a whole batch of training examples is a mean over: weights of segments, or questions."""
        ...

    def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> Tensor:
        """What a part of a batch adds to the loss of the whole batch, whose `total` is given."""
        ...

    def evaluate(self, backend: Backend) -> HeldOut:
        """Figures on the held-out examples."""
        ...

    def score(self, backend: Backend) -> list[Scored]:
        """The scores of the held-out examples: for each head of the model."""
        ...


@dataclass(frozen=True)
class SpanObjective:
    """Cross-entropy of the segments' classes.

    Attributes:
        train: To learn from.
        dev: Held out.
        head: What the logits mean.
        pad_id: Of the tokenizer.
        class_weights: [C] float32, what a segment of each class counts; 1 when absent.
    """

    train: Sequence[SpanExample]
    dev: Sequence[SpanExample]
    head: Head
    pad_id: int
    class_weights: NDArray[np.float32] | None = None

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example."""
        return [example.encoded.length_tokens for example in self.train]

    def total(self, indices: Sequence[int]) -> float:
        """The weights of the segments that count."""
        labels = np.concatenate([self.train[index].labels for index in indices])
        counted = labels[labels != IGNORED]
        return float(len(counted) if self.class_weights is None else self.class_weights[counted].sum())

    def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> Tensor:
        """See `losses.span_loss`."""
        examples = [self.train[index] for index in indices]
        logits = _forward(model, [example.encoded for example in examples], self.pad_id, device)
        read = read_tokens(logits, range(len(examples)), [example.encoded.reads[0] for example in examples])
        labels = torch.from_numpy(np.concatenate([example.labels for example in examples])).to(device)
        weights = None if self.class_weights is None else torch.from_numpy(self.class_weights).to(device)
        return span_loss(read, labels, weights) / total

    def evaluate(self, backend: Backend) -> HeldOut:
        """See `figures.span_metrics`."""
        scores = self._score(backend)
        metrics = span_metrics(self.dev, scores, self.head.ok_label)
        if self.class_weights is None:
            return HeldOut(metrics, metrics["loss"])
        return HeldOut(metrics, weighted_loss(self.dev, scores, self.class_weights))

    def score(self, backend: Backend) -> list[Scored]:
        """The scores of the held-out responses."""
        return [Scored(self.dev, self._score(backend))]

    def _score(self, backend: Backend) -> list[ItemScore]:
        return score_all(backend, [self.head], [example.encoded for example in self.dev], self.pad_id)[0]


@dataclass(frozen=True)
class PairObjective:
    """The pairwise loss over all pairs of a question."""

    train: Sequence[PairExample]
    dev: Sequence[PairExample]
    head: Head
    pad_id: int

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example's longest response."""
        return [max(item.length_tokens for item in example.encoded) for example in self.train]

    def total(self, indices: Sequence[int]) -> float:
        """The number of questions: each counts the same."""
        return float(len(indices))

    def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> Tensor:
        """See `losses.pairwise_loss`."""
        examples = [self.train[index] for index in indices]
        encoded = [item for example in examples for item in example.encoded]
        winners: list[int] = []
        losers: list[int] = []
        weights: list[float] = []
        first = 0
        for example in examples:
            pairs = example.row.pairs
            winners.extend(first + winner for winner, _ in pairs)
            losers.extend(first + loser for _, loser in pairs)
            weights.extend([1.0 / len(pairs)] * len(pairs))
            first += len(example.encoded)
        logits = _forward(model, encoded, self.pad_id, device)
        if logits.ndim == 3:
            logits = read_tokens(logits, range(len(encoded)), [item.reads[0] for item in encoded])
        scores = logits[:, 0]
        loss = pairwise_loss(
            scores,
            torch.tensor(winners, device=device),
            torch.tensor(losers, device=device),
            torch.tensor(weights, device=device),
        )
        return loss / total

    def evaluate(self, backend: Backend) -> HeldOut:
        """See `figures.pair_metrics`."""
        metrics = pair_metrics(self.dev, self._score(backend))
        return HeldOut(metrics, metrics["loss"])

    def score(self, backend: Backend) -> list[Scored]:
        """The scores of the held-out responses, one question after the other."""
        return [Scored(self.dev, self._score(backend))]

    def _score(self, backend: Backend) -> list[ItemScore]:
        encoded = [item for example in self.dev for item in example.encoded]
        return score_all(backend, [self.head], encoded, self.pad_id)[0]


def teaches(example: SpanExample | PairExample) -> bool:
    """Whether an example has a segment that counts, or a pair."""
    if isinstance(example, SpanExample):
        return bool((example.labels != IGNORED).any())
    return bool(example.row.pairs)


def calibrate(backend: Backend, heads: Sequence[Head], responses: Sequence[Encoded], pad_id: int) -> list[Calibration]:
    """Each head's mean and standard deviation over training responses: of each segment's score for a classifier."""
    by_head = score_all(backend, heads, responses[:CALIBRATION_RESPONSES], pad_id)
    return [_calibration(head, scores) for head, scores in zip(heads, by_head, strict=True)]


def _calibration(head: Head, scores: Sequence[ItemScore]) -> Calibration:
    values = (
        [segment.score for score in scores for segment in score.segments]
        if head.kind.is_classifier
        else scalars(scores)
    )
    return Calibration(mean=float(np.mean(values)), std=max(float(np.std(values)), _SMALLEST_STD))


def _forward(model: Any, encoded: Sequence[Encoded], pad_id: int, device: torch.device) -> Tensor:
    batch = collate(encoded, pad_id)
    output = model(
        input_ids=torch.from_numpy(batch.input_ids).to(device),
        attention_mask=torch.from_numpy(batch.attention_mask).to(device),
    )
    logits: Tensor = output.logits
    return logits
