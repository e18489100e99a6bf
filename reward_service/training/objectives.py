"""What a model is taught and how it is judged: segments' classes, or pairs of responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from reward_proto.models import Calibration
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, Head
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.figures import Metrics, pair_metrics, span_metrics
from reward_service.training.labels import IGNORED
from reward_service.training.losses import pairwise_loss, span_loss
from reward_service.training.scoring import scalars, score_all

CALIBRATION_RESPONSES = 2000
"""Training responses whose scores give the calibration: the first so many."""

_SMALLEST_STD = 1e-6


class Objective(Protocol):
    """A set of training examples with their loss, and held-out ones with their figures."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example's longest input."""
        ...

    def loss(self, model: Any, indices: Sequence[int], device: torch.device) -> Tensor:
        """The loss of a batch of training examples."""
        ...

    def evaluate(self, backend: Backend) -> Metrics:
        """Figures on the held-out examples; `loss` among them."""
        ...


@dataclass(frozen=True)
class SpanObjective:
    """Cross-entropy at the separators."""

    train: Sequence[SpanExample]
    dev: Sequence[SpanExample]
    head: Head
    pad_id: int

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example."""
        return [example.encoded.length_tokens for example in self.train]

    def loss(self, model: Any, indices: Sequence[int], device: torch.device) -> Tensor:
        """See `losses.span_loss`."""
        examples = [self.train[index] for index in indices]
        logits = _forward(model, [example.encoded for example in examples], self.pad_id, device)
        rows = np.repeat(np.arange(len(examples)), [len(example.labels) for example in examples])
        columns = np.concatenate([example.encoded.reads[0].positions for example in examples])
        labels = np.concatenate([example.labels for example in examples])
        return span_loss(logits, *(torch.from_numpy(array).to(device) for array in (rows, columns, labels)))

    def evaluate(self, backend: Backend) -> Metrics:
        """See `figures.span_metrics`."""
        scores = score_all(backend, [self.head], [example.encoded for example in self.dev], self.pad_id)[0]
        return span_metrics(self.dev, scores, self.head.ok_label)


@dataclass(frozen=True)
class PairObjective:
    """The pairwise loss over all pairs of a question."""

    train: Sequence[PairExample]
    dev: Sequence[PairExample]
    head: Head
    pad_id: int

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training example's longest prediction."""
        return [max(item.length_tokens for item in example.encoded) for example in self.train]

    def loss(self, model: Any, indices: Sequence[int], device: torch.device) -> Tensor:
        """See `losses.pairwise_loss`."""
        examples = [self.train[index] for index in indices]
        encoded = [item for example in examples for item in example.encoded]
        winners: list[int] = []
        losers: list[int] = []
        weights: list[float] = []
        first = 0
        for example in examples:
            winners.extend(first + winner for winner, _ in example.pairs)
            losers.extend(first + loser for _, loser in example.pairs)
            weights.extend([1.0 / len(example.pairs)] * len(example.pairs))
            first += len(example.encoded)
        scores = _forward(model, encoded, self.pad_id, device)[:, 0]
        return pairwise_loss(
            scores,
            torch.tensor(winners, device=device),
            torch.tensor(losers, device=device),
            torch.tensor(weights, device=device),
        )

    def evaluate(self, backend: Backend) -> Metrics:
        """See `figures.pair_metrics`."""
        encoded = [item for example in self.dev for item in example.encoded]
        return pair_metrics(self.dev, score_all(backend, [self.head], encoded, self.pad_id)[0])


def teaches(example: SpanExample | PairExample) -> bool:
    """Whether an example has a segment that counts, or a pair."""
    if isinstance(example, SpanExample):
        return bool((example.labels != IGNORED).any())
    return bool(example.pairs)


def calibrate(backend: Backend, head: Head, responses: Sequence[Encoded], pad_id: int) -> Calibration:
    """Mean and standard deviation of the scores of training responses: of each segment's for a classifier."""
    scores = score_all(backend, [head], responses[:CALIBRATION_RESPONSES], pad_id)[0]
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
