"""`POST /v1/score` and `POST /v1/segment`: what is asked and what is answered."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from reward_proto.errors import ScoreError


class Granularity(StrEnum):
    """How finely a reward model divides a response."""

    SUB_SENTENCE = "sub_sentence"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    SEQUENCE = "sequence"


Offset = Annotated[int, Field(ge=0, strict=True)]
"""A position in a text, in Unicode code points."""


class ScoreItem(BaseModel):
    """One response to score.

    Attributes:
        id: Names the item in the reply; its index in the request when absent.
        prompt: What the policy was given. A template may use it as `{prompt}`.
        response: The text to score. Spans of the reply are code-point offsets into it.
        fields: Named inputs for the models' templates, such as `question` and `context`.
        segments: The caller's own half-open spans for a granularity, in place of the service's segmenter.
    """

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    prompt: str = ""
    response: str
    fields: dict[str, str] = Field(default_factory=dict)
    segments: dict[Granularity, list[tuple[Offset, Offset]]] = Field(default_factory=dict)


class ScoreRequest(BaseModel):
    """A batch of responses and the models that score each of them.

    Attributes:
        items: At least one item; the service's `max_items` bounds their number.
        models: `name`, `name@alias` or `name@version`; every loaded model when absent.
        timeout_s: The caller's deadline in seconds. Work past it is dropped, not computed.
        return_logits: Whether each segment carries the model's raw outputs.
    """

    model_config = ConfigDict(extra="forbid")

    items: list[ScoreItem] = Field(min_length=1)
    models: list[str] | None = Field(default=None, min_length=1)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    return_logits: bool = False


class SegmentScore(BaseModel):
    """The score of one segment.

    Attributes:
        start: First code point of the segment in the response.
        end: One past its last code point.
        score: P(no error) in [0, 1] for a classifier; the raw scalar for a regressor.
        label: The classifier's winning class; null for a regressor.
        logits: The model's raw outputs, when asked for.
    """

    start: int
    end: int
    score: float = Field(allow_inf_nan=False)
    label: str | None = None
    logits: list[float] | None = None


class ModelScore(BaseModel):
    """What one reward model says of one response.

    Exactly one of `segments` and `error` is set: a score that cannot be given is an error, never a 0.

    Attributes:
        model: The model's name.
        version: Digest of weights, tokenizer and manifest.
        runtime: Backend and precision, such as `onnxruntime-fp32`. With `version` it names the number.
        granularity: What the segments are.
        segments: In order, not overlapping; null if the score could not be given.
        sequence_score: Mean of the segments for a classifier, the scalar for a regressor; null with no segments.
        truncated_tokens: How many input tokens were cut, where the manifest allows it; 0 otherwise.
        cached: Whether the score was computed before.
        error: Why there is no score.
    """

    model: str
    version: str
    runtime: str
    granularity: Granularity
    segments: list[SegmentScore] | None
    sequence_score: float | None = Field(default=None, allow_inf_nan=False)
    truncated_tokens: int = 0
    cached: bool = False
    error: ScoreError | None = None


class ItemResult(BaseModel):
    """Every model's score of one item, by the model's name."""

    id: str
    scores: dict[str, ModelScore]


class Usage(BaseModel):
    """What the request cost: tokens of its inputs, and tokens computed for them. What was not computed anew costs 0."""

    input_tokens: int
    padded_tokens: int


class ScoreReply(BaseModel):
    """The reply to a `ScoreRequest`: one result for each item, in the request's order."""

    results: list[ItemResult]
    usage: Usage
    request_id: str


class SegmentRequest(BaseModel):
    """A text whose segments are wanted, without scores."""

    model_config = ConfigDict(extra="forbid")

    text: str
    granularity: Granularity


class SegmentReply(BaseModel):
    """Half-open spans in code points, and the segmenter that found them."""

    granularity: Granularity
    segmenter: str
    segments: list[tuple[int, int]]
