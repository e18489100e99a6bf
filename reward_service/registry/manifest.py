"""What a published reward model says of itself. Everything here that changes a score is part of its version."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.domain import Head


class SegmenterSpec(BaseModel):
    """Which segmenter divides the response, and its version, since a change of rule changes scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str = "en"
    version: str


class Manifest(BaseModel):
    """The description stored beside the weights.

    Attributes:
        name: The model's name in the store.
        kind: What the head puts out.
        granularity: What the segments are.
        template: The input's prefix; `{prompt}` and `{field}` are replaced by the item's own.
        labels: Class names by index; empty for a regressor.
        ok_label: The class that means "no error"; empty for a regressor.
        max_tokens: Longest input in the model's own tokens, special tokens included.
        cut_field: The one field whose text may be shortened to fit `max_tokens`; too long is an error when absent.
        segmenter: Which rule divides responses.
        calibration: Mean and standard deviation of scores on training responses.
        metrics: Held-out figures at training; told, never used.
        trained_on: Digest of the feedback file and the settings, for provenance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    kind: ModelKind
    granularity: Granularity
    template: str
    labels: tuple[str, ...] = ()
    ok_label: str = ""
    max_tokens: int = Field(gt=0)
    cut_field: str | None = None
    segmenter: SegmenterSpec
    calibration: Calibration | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    trained_on: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _labels_fit_the_kind(self) -> "Manifest":
        if self.kind.is_classifier and (len(self.labels) < 2 or self.ok_label not in self.labels):
            raise ValueError(f"a classifier needs at least two labels and ok_label among them, got {self.labels}")
        if not self.kind.is_classifier and (self.labels or self.ok_label):
            raise ValueError("a regressor has no labels")
        if self.kind is not ModelKind.TOKEN_CLASSIFICATION and self.granularity is not Granularity.SEQUENCE:
            raise ValueError(f"a {self.kind.value} model scores the whole sequence, not each {self.granularity.value}")
        return self

    @property
    def head(self) -> Head:
        """The part of the manifest that turns logits into scores."""
        return Head(self.kind, self.labels, self.ok_label)
