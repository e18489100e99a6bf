"""The values that flow through the service, each made by the stage before: text, spans, token ids, batch."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.errors import ServiceError


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range of Unicode code points in a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TextItem:
    """What a caller sent for one response; the inside of the wire's `ScoreItem`."""

    prompt: str
    response: str
    fields: dict[str, str] = field(default_factory=dict)
    segments: dict[Granularity, tuple[Span, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Segmented:
    """A response and its segments, in order and not overlapping."""

    item: TextItem
    spans: tuple[Span, ...]


class Readout(StrEnum):
    """At which separator a segment's class is read.

    `BEFORE` is the paper's. A decoder-only model cannot see ahead, so its separators stand after the segments.
    """

    BEFORE = "before"
    AFTER = "after"


class Pooling(StrEnum):
    """What of a segment is read.

    `SEPARATOR` is the paper's: the logits at its separator. `MEAN` is the mean of the logits of its separator and its
    tokens. The head is linear, so that this is the head's reading of their mean hidden state. `SUM` is their sum, for
    scalars that grow with what a response says; it is counted in units of `SUM_UNIT_TOKENS`.
    """

    SEPARATOR = "separator"
    MEAN = "mean"
    SUM = "sum"


SUM_UNIT_TOKENS = 64
"""A sum over so many tokens is as large as their mean, so that both are learned at the same rates."""


@dataclass(frozen=True, slots=True)
class Read:
    """Where one head reads one input.

    Attributes:
        positions: [S] int64 places in `input_ids`, one a segment, in order. Empty for a model whose one head reads
            the whole input.
        spans: The S segments that are read; one covering span for a sequence head, `Span(0, 0)` for a blank response.
        widths: [S] int64, at least 1: how many tokens from each place on are added up; one each when absent.
        divisors: [S] int64, what the sums are divided by: the widths for a mean. There where widths are.
    """

    positions: NDArray[np.int64]
    spans: tuple[Span, ...]
    widths: NDArray[np.int64] | None = None
    divisors: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """One model input.

    Attributes:
        input_ids: [L] int64 token ids, special tokens included.
        reads: One for each head of the model.
        truncated_tokens: Tokens cut from the field that the manifest allows to be cut.
    """

    input_ids: NDArray[np.int64]
    reads: tuple[Read, ...]
    truncated_tokens: int = 0

    @property
    def length_tokens(self) -> int:
        """Number of real tokens."""
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded items padded to one length.

    Attributes:
        input_ids: [B, T] int64, the model's pad id where `attention_mask` is 0.
        attention_mask: [B, T] int64, 1 = a real token.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Head:
    """What `core.align` must know of a model to turn logits into scores.

    Attributes:
        kind: What the head puts out.
        labels: Class names by index; empty for a regressor.
        ok_label: The class that means "no error"; empty for a regressor. With `error_labels` what is said where none
            of them holds, which is no class of its own.
        name: What a head that shares its encoder with others is called; empty for a model's only head.
        first_column: Where this head's logits begin among those of all heads.
        error_labels: Of a classifier whose classes do not exclude each other, those that are errors; empty otherwise.
    """

    kind: ModelKind
    labels: tuple[str, ...] = ()
    ok_label: str = ""
    name: str = ""
    first_column: int = 0
    error_labels: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Logits of this head: one a class, 1 for a regressor."""
        return len(self.labels) if self.kind.is_classifier else 1

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What a segment may be labelled as: a class, by index, or `ok_label` where that is none."""
        return (*self.labels, self.ok_label) if self.error_labels else self.labels

    @property
    def columns(self) -> slice:
        """This head's logits among those of all heads."""
        return slice(self.first_column, self.first_column + self.width)


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A segment with its score; the inside of the wire's `SegmentScore`."""

    span: Span
    score: float
    label: str | None
    logits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What one model says of one response.

    Attributes:
        segments: The S scored segments in order; none for a blank response.
        sequence_score: Mean of the segments for a classifier, the scalar for a regressor; None where a span model
            had nothing to read. A sequence model scores a blank response too, so this may stand without segments.
        truncated_tokens: Input tokens that were cut, where the manifest allows it.
        cached: Whether it was computed for an earlier request.
    """

    segments: tuple[ScoredSpan, ...]
    sequence_score: float | None
    truncated_tokens: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model tells of itself; the inside of the wire's `ModelInfo`.

    Attributes:
        name: What requests call it.
        version: Short digest; `digest` is the full one.
        digest: Over weights, tokenizer and manifest.
        aliases: Moving names of this version.
        head: What its outputs mean.
        granularity: What its segments are.
        language: The segmenter's.
        template: The input's prefix.
        max_tokens: Longest input.
        runtime: Backend and precision.
        calibration: Mean and standard deviation of its training scores, if recorded.
    """

    name: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    head: Head
    granularity: Granularity
    language: str
    template: str
    max_tokens: int
    runtime: str
    calibration: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """One model's results, one for each item in order."""

    card: ModelCard
    results: tuple[ItemScore | ServiceError, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request's results and what they cost.

    Attributes:
        models: In the order that the request named them.
        input_tokens: Real tokens of the inputs, over all models.
        padded_tokens: Tokens computed for them, padding included.
        tokenize_s: Longest of the models' tokenizing, waiting and inference; the models run side by side.
        queue_s: See `tokenize_s`.
        inference_s: See `tokenize_s`.
    """

    models: tuple[ModelOutcome, ...]
    input_tokens: int
    padded_tokens: int
    tokenize_s: float
    queue_s: float
    inference_s: float
