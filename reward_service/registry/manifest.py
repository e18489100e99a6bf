"""What a published reward model says of itself. Everything here that changes a score is part of its version."""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputSpec
from reward_service.domain import Head, Pooling, Readout

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Names of models and heads."""

FINEST_FIRST = (Granularity.SUB_SENTENCE, Granularity.SENTENCE, Granularity.PARAGRAPH, Granularity.SEQUENCE)


class SegmenterSpec(BaseModel):
    """Which segmenter divides the response, and its version, since a change of rule changes scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str = "en"
    version: str


class Scoring(StrEnum):
    """How a segment's score comes out of the network's.

    `PREFIX_DIFFERENCE` makes a classifier of whole texts score sentences: the change of P(ok) that each sentence
    brings (arXiv 2306.01693, detoxification).
    """

    DIRECT = "direct"
    PREFIX_DIFFERENCE = "prefix_difference"


class HeadSpec(BaseModel):
    """One head: what it puts out, and for what.

    Attributes:
        name: What it is served as.
        kind: What the head puts out.
        granularity: What its segments are.
        labels: Class names by index; empty for a regressor.
        ok_label: The class that means "no error"; empty for a regressor.
        error_labels: See `Manifest`.
        pooling: What of a segment it reads.
        calibration: Mean and standard deviation of its scores on training responses.
        metrics: Held-out figures at training; told, never used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    kind: ModelKind
    granularity: Granularity
    labels: tuple[str, ...] = ()
    ok_label: str = ""
    error_labels: tuple[str, ...] = ()
    pooling: Pooling = Pooling.SEPARATOR
    calibration: Calibration | None = None
    metrics: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _labels_fit_the_kind(self) -> Self:
        _check_labels(self)
        if self.kind is not ModelKind.TOKEN_CLASSIFICATION and self.granularity is not Granularity.SEQUENCE:
            raise ValueError(f"a {self.kind.value} model scores the whole sequence, not each {self.granularity.value}")
        if self.pooling is Pooling.SUM and self.kind.is_classifier:
            raise ValueError("a sum grows with the segment, so that only a regressor reads one")
        return self


class Manifest(BaseModel):
    """The description stored beside the weights.

    Attributes:
        name: The model's name in the store.
        kind: What the network puts out. A network of several heads is a token classifier.
        granularity: What the segments are; the finest one of several heads.
        template: The input's prefix; `{prompt}` and `{field}` are replaced by the item's own.
        labels: Class names by index; empty for a regressor, and where there are several heads.
        ok_label: The class that means "no error"; empty where `labels` is.
        error_labels: Of classes that do not exclude each other (a sigmoid each), those that are errors. `ok_label` is
            then no class but what a segment without them is called. Empty where one class holds (a softmax over all).
        heads: Of a network whose one forward pass gives the scores of several models: each takes the next columns of
            the logits, one a class, and is served by its own name. A single head is a sequence model that is read from
            its tokens' logits. Empty for a network that is one model.
        max_tokens: Longest input in the model's own tokens, special tokens included.
        cut_field: The one field whose text may be shortened to fit `max_tokens`; too long is an error when absent.
        readout: On which side of its segment a separator stands.
        pooling: What of a segment is read, where there are no `heads`: its separator, or the mean of its separator and
            its tokens.
        scoring: How a segment's score comes out of the network's.
        segmenter: Which rule divides responses.
        calibration: Mean and standard deviation of scores on training responses.
        metrics: Held-out figures at training; told, never used.
        trained_on: Digest of the feedback file and the settings, for provenance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    kind: ModelKind
    granularity: Granularity
    template: str
    labels: tuple[str, ...] = ()
    ok_label: str = ""
    error_labels: tuple[str, ...] = ()
    heads: tuple[HeadSpec, ...] = ()
    max_tokens: int = Field(gt=0)
    cut_field: str | None = None
    readout: Readout = Readout.BEFORE
    pooling: Pooling = Pooling.SEPARATOR
    scoring: Scoring = Scoring.DIRECT
    segmenter: SegmenterSpec
    calibration: Calibration | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    trained_on: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.heads:
            self._check_heads()
            return self
        _check_labels(self)
        if self.pooling is not Pooling.SEPARATOR and self.kind is not ModelKind.TOKEN_CLASSIFICATION:
            raise ValueError(
                f"a {self.pooling.value} is over tokens' logits, so it needs a token_classification network"
            )
        if self.scoring is Scoring.PREFIX_DIFFERENCE:
            if self.kind is not ModelKind.SEQUENCE_CLASSIFICATION or self.granularity is Granularity.SEQUENCE:
                raise ValueError("prefix_difference makes a sequence_classification model score parts of a text")
        elif self.kind is not ModelKind.TOKEN_CLASSIFICATION and self.granularity is not Granularity.SEQUENCE:
            raise ValueError(f"a {self.kind.value} model scores the whole sequence, not each {self.granularity.value}")
        return self

    def _check_heads(self) -> None:
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ValueError(f"heads are of different names, got {names}")
        if len(names) == 1 and (self.heads[0].pooling is Pooling.SEPARATOR or names != [self.name]):
            raise ValueError("a single head is of its network's name and reads more than a separator")
        if self.kind is not ModelKind.TOKEN_CLASSIFICATION or self.scoring is not Scoring.DIRECT:
            raise ValueError("a network of several heads is a token classifier with direct scoring")
        if self.labels or self.ok_label or self.error_labels or self.calibration is not None:
            raise ValueError("labels and calibration belong to each of several heads, not to the network")
        finest = next(one for one in FINEST_FIRST if any(head.granularity is one for head in self.heads))
        if self.granularity is not finest:
            raise ValueError(f"the finest head scores each {finest.value}, not {self.granularity.value}")

    @property
    def outputs(self) -> tuple[HeadSpec, ...]:
        """The models that the network gives the scores of: its heads, or itself."""
        if self.heads:
            return self.heads
        direct = self.scoring is Scoring.DIRECT
        return (
            HeadSpec(
                name=self.name,
                kind=self.kind,
                granularity=self.granularity if direct else Granularity.SEQUENCE,
                labels=self.labels,
                ok_label=self.ok_label,
                error_labels=self.error_labels,
                pooling=self.pooling,
                calibration=self.calibration,
                metrics=self.metrics,
            ),
        )

    @property
    def logit_heads(self) -> tuple[Head, ...]:
        """What turns logits into the scores of `outputs`."""
        heads: list[Head] = []
        column = 0
        for output in self.outputs:
            name = output.name if self.heads else ""
            heads.append(Head(output.kind, output.labels, output.ok_label, name, column, output.error_labels))
            column += heads[-1].width
        return tuple(heads)

    @property
    def input_spec(self) -> InputSpec:
        """What turns texts into inputs."""
        outputs = self.outputs
        kinds, poolings = (tuple(output.kind for output in outputs), tuple(output.pooling for output in outputs))
        return InputSpec(self.template, kinds, self.max_tokens, self.cut_field, self.readout, poolings)


def _check_labels(model: Manifest | HeadSpec) -> None:
    labels, ok_label, errors = model.labels, model.ok_label, model.error_labels
    if not model.kind.is_classifier:
        if labels or ok_label or errors:
            raise ValueError("a regressor has no labels")
        return
    if len(set(labels)) < len(labels):
        raise ValueError(f"two labels of a classifier have one name: {', '.join(labels)}")
    if not errors and (len(labels) < 2 or ok_label not in labels):
        raise ValueError(f"a classifier needs at least two labels and ok_label among them, got {labels}, {ok_label!r}")
    if errors and (len(set(errors)) < len(errors) or not set(errors) <= set(labels)):
        raise ValueError(f"error labels {', '.join(errors)} are not among the labels, which are {', '.join(labels)}")
    if errors and (not ok_label or ok_label in labels):
        raise ValueError(f"where classes do not exclude each other, ok_label is none of them, got {ok_label!r}")
