"""Several rewards taught to one network: every text goes through it once for all the heads that learn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reward_proto.models import ModelKind
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.domain import Encoded, Head, TextItem
from reward_service.errors import ServiceError
from reward_service.training.dataset import Inputs, PairExample, SpanExample
from reward_service.training.evaluate import Rule
from reward_service.training.feedback import Feedback, PairRow, SpanRow, refuse
from reward_service.training.figures import Metrics, pair_metrics, span_metrics, weighted_loss
from reward_service.training.labels import IGNORED, label_segments
from reward_service.training.losses import pairwise_loss, span_loss
from reward_service.training.objectives import HeldOut, Scored
from reward_service.training.read_out import read_tokens
from reward_service.training.scoring import score_all


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one head learns.

    Attributes:
        head: What its logits mean.
        rule: Which marks teach a span head, or which comparisons a sequence head.
        weight: Of its loss among those of all heads, > 0.
        class_weights: What a segment of each class counts; 1 when absent.
    """

    head: Head
    rule: Rule
    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None

    @property
    def marks(self) -> bool:
        """Whether it learns from marks, and not from comparisons."""
        return self.head.kind is ModelKind.TOKEN_CLASSIFICATION


@dataclass(frozen=True, slots=True)
class JointExample:
    """The texts of one row of feedback and what they teach each head.

    Attributes:
        texts: Inputs of the row's responses, each once.
        spans: By head the labels of one of the texts.
        pairs: By head comparisons among the texts.
    """

    texts: tuple[Encoded, ...]
    spans: Mapping[str, SpanExample]
    pairs: Mapping[str, PairExample]

    def teaches(self, name: str) -> bool:
        """Whether a head learns anything from it."""
        if name in self.spans:
            return bool((self.spans[name].labels != IGNORED).any())
        return name in self.pairs and bool(self.pairs[name].row.pairs)


@dataclass(slots=True)
class _Draft:
    """A row on its way to an example."""

    texts: list[tuple[str, TextItem]] = field(default_factory=list)
    spans: dict[str, tuple[int, SpanRow]] = field(default_factory=dict)
    pairs: dict[str, tuple[list[int], PairRow]] = field(default_factory=dict)

    def place(self, where: str, item: TextItem) -> int:
        """The number of a text in this row."""
        known = [text for _, text in self.texts]
        if item not in known:
            self.texts.append((where, item))
            return len(known)
        return known.index(item)


def build_joint_examples(feedback: Feedback, inputs: Inputs, lessons: Sequence[Lesson]) -> list[JointExample]:
    """Encode every response once and label it for every head.

    Args:
        feedback: Rows of responses.
        inputs: Of the network, with a read-out for each head, in the lessons' order.
        lessons: One a head.

    Raises:
        ConfigError: Inputs that the encoder refuses, all of them, each with its place; or the format lacks what a rule
            needs.
    """
    drafts: dict[int, _Draft] = {}
    for lesson in lessons:
        name = lesson.head.name
        if lesson.marks:
            for row in feedback.span_rows():
                draft = drafts.setdefault(row.index, _Draft())
                draft.spans[name] = (draft.place(row.place, row.item), row)
        else:
            for pair in feedback.pair_rows(lesson.rule.pairs, lesson.rule.coverage_similarity):
                draft = drafts.setdefault(pair.index, _Draft())
                draft.pairs[name] = ([draft.place(pair.place, item) for item in pair.items], pair)
    faults: list[str] = []
    examples = [_finish(drafts[index], inputs, lessons, faults) for index in sorted(drafts)]
    if faults:
        refuse(faults)
    return examples


def _finish(draft: _Draft, inputs: Inputs, lessons: Sequence[Lesson], faults: list[str]) -> JointExample:
    texts: list[Encoded] = []
    for where, item in draft.texts:
        try:
            texts.append(inputs.encode(item))
        except ServiceError as error:
            faults.append(f"{where}: {error}")
    spans: dict[str, SpanExample] = {}
    pairs: dict[str, PairExample] = {}
    if len(texts) == len(draft.texts):
        for number, lesson in enumerate(lessons):
            name = lesson.head.name
            if name in draft.spans:
                place, row = draft.spans[name]
                segments = texts[place].reads[number].spans
                labels = label_segments(row.item.response, segments, row.errors, lesson.rule.span)
                spans[name] = SpanExample(row, texts[place], labels)
            elif name in draft.pairs:
                places, pair = draft.pairs[name]
                pairs[name] = PairExample(pair, tuple(texts[place] for place in places))
    return JointExample(tuple(texts), spans, pairs)


@dataclass(frozen=True)
class JointObjective:
    """The weighted sum of the heads' losses; to each head every row that teaches it counts the same.

    Attributes:
        train: To learn from.
        dev: Held out.
        lessons: One a head, in the order of the logits.
        pad_id: Of the tokenizer.
    """

    train: Sequence[JointExample]
    dev: Sequence[JointExample]
    lessons: Sequence[Lesson]
    pad_id: int

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each training row's longest text."""
        return [max(text.length_tokens for text in example.texts) for example in self.train]

    def total(self, indices: Sequence[int]) -> float:
        """The number of rows."""
        return float(len(indices))

    def loss(self, model: Any, indices: Sequence[int], total: float, device: torch.device) -> Tensor:
        """What a part of a batch adds to the loss; see `losses` for the heads' own."""
        examples = [self.train[index] for index in indices]
        texts = [text for example in examples for text in example.texts]
        places = {id(text): row for row, text in enumerate(texts)}
        batch = collate(texts, self.pad_id)
        logits: Tensor = model(
            input_ids=torch.from_numpy(batch.input_ids).to(device),
            attention_mask=torch.from_numpy(batch.attention_mask).to(device),
        ).logits
        losses = [
            lesson.weight * self._head_loss(number, lesson, examples, places, logits)
            for number, lesson in enumerate(self.lessons)
        ]
        return torch.stack(losses).sum() / total

    def _head_loss(
        self,
        number: int,
        lesson: Lesson,
        examples: Sequence[JointExample],
        places: Mapping[int, int],
        logits: Tensor,
    ) -> Tensor:
        """The sum over rows of one head's mean loss in each."""
        own = logits[..., lesson.head.columns]
        taught = [example for example in examples if example.teaches(lesson.head.name)]
        if not taught:
            return own.sum() * 0.0
        if lesson.marks:
            return torch.stack([self._span_mean(number, lesson, example, places, own) for example in taught]).sum()
        return torch.stack([self._pair_mean(number, lesson, example, places, own) for example in taught]).sum()

    def _span_mean(
        self, number: int, lesson: Lesson, example: JointExample, places: Mapping[int, int], own: Tensor
    ) -> Tensor:
        span = example.spans[lesson.head.name]
        read = read_tokens(own, [places[id(span.encoded)]], [span.encoded.reads[number]])
        labels = torch.from_numpy(span.labels).to(own.device)
        weights = None if lesson.class_weights is None else torch.tensor(lesson.class_weights, device=own.device)
        return span_loss(read, labels, weights) / (labels != IGNORED).sum()

    def _pair_mean(
        self, number: int, lesson: Lesson, example: JointExample, places: Mapping[int, int], own: Tensor
    ) -> Tensor:
        pair = example.pairs[lesson.head.name]
        rows = [places[id(text)] for text in pair.encoded]
        scores = read_tokens(own, rows, [text.reads[number] for text in pair.encoded])[:, 0]
        winners, losers = (torch.tensor(side, device=own.device) for side in zip(*pair.row.pairs, strict=True))
        shares = torch.full((len(pair.row.pairs),), 1.0 / len(pair.row.pairs), device=own.device)
        return pairwise_loss(scores, winners, losers, shares)

    def evaluate(self, backend: Backend) -> HeldOut:
        """Figures of each head as `HEAD.FIGURE`, and the weighted sum of their losses."""
        flat: Metrics = {}
        losses: list[float] = []
        for lesson, scored in zip(self.lessons, self.score(backend), strict=True):
            metrics, loss = _judge(lesson, scored)
            flat.update((f"{lesson.head.name}.{figure}", value) for figure, value in metrics.items())
            if loss is not None:
                losses.append(lesson.weight * loss)
        return HeldOut(flat, sum(losses) if losses else None)

    def score(self, backend: Backend) -> list[Scored]:
        """The scores of the held-out responses, by head; every text is scored once."""
        texts = [text for example in self.dev for text in example.texts]
        heads = [lesson.head for lesson in self.lessons]
        by_head = []
        for lesson, scores in zip(self.lessons, score_all(backend, heads, texts, self.pad_id), strict=True):
            found = {id(text): score for text, score in zip(texts, scores, strict=True)}
            name = lesson.head.name
            if lesson.marks:
                spans = [example.spans[name] for example in self.dev if name in example.spans]
                by_head.append(Scored(spans, [found[id(span.encoded)] for span in spans]))
            else:
                pairs = [example.pairs[name] for example in self.dev if name in example.pairs]
                by_head.append(Scored(pairs, [found[id(text)] for pair in pairs for text in pair.encoded]))
        return by_head


def _judge(lesson: Lesson, scored: Scored) -> tuple[Metrics, float | None]:
    """A head's figures, and its held-out loss."""
    spans = [example for example in scored.examples if isinstance(example, SpanExample)]
    if not lesson.marks:
        pairs = [example for example in scored.examples if isinstance(example, PairExample)]
        metrics = pair_metrics(pairs, scored.scores)
        return metrics, metrics["loss"]
    metrics = span_metrics(spans, scored.scores, lesson.head.ok_label)
    if lesson.class_weights is None:
        return metrics, metrics["loss"]
    return metrics, weighted_loss(spans, scored.scores, np.array(lesson.class_weights, dtype=np.float32))
