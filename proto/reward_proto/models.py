"""`GET /v1/models` and `GET /v1/models/{name}`: what is served; and what changes it."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from reward_proto.score import Granularity


class ModelKind(StrEnum):
    """What a reward model's head puts out."""

    TOKEN_CLASSIFICATION = "token_classification"
    SEQUENCE_CLASSIFICATION = "sequence_classification"
    SEQUENCE_REGRESSION = "sequence_regression"

    @property
    def is_classifier(self) -> bool:
        """Whether the model's score is the probability of "no error"."""
        return self is not ModelKind.SEQUENCE_REGRESSION


class ModelState(StrEnum):
    """Where a model stands in its life.

    A name that is served stays `ready` while another version of it is loaded, or fails to load. `failed` is also a
    served model whose worker has ended.
    """

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


class Calibration(BaseModel):
    """Mean and standard deviation of the model's scores over its training responses.

    The paper z-scores the completeness reward with these (arXiv 2306.01693).
    """

    mean: float = Field(allow_inf_nan=False)
    std: float = Field(gt=0, allow_inf_nan=False)


class ModelInfo(BaseModel):
    """A served reward model.

    Attributes:
        name: What requests call it.
        version: Digest of weights, tokenizer and manifest; pin it as `name@version`.
        aliases: Moving names of this version, such as `latest`.
        kind: What its head puts out.
        granularity: What its segments are.
        labels: Class names by index, and last what a segment without an error is called where that is no class;
            empty for a regressor.
        template: The input's prefix, with `{field}` for each named input.
        max_tokens: Longest input in the model's own tokens.
        runtime: Backend and precision.
        calibration: Statistics of its scores; null if none were recorded.
        digest: Full digest that `version` abbreviates.
        state: Where it stands.
    """

    name: str
    version: str
    aliases: list[str] = Field(default_factory=list)
    kind: ModelKind
    granularity: Granularity
    labels: list[str] = Field(default_factory=list)
    template: str
    max_tokens: int
    runtime: str
    calibration: Calibration | None = None
    digest: str
    state: ModelState


class LoadRequest(BaseModel):
    """`POST /v1/models/{name}/load`.

    Attributes:
        version: A version of the model, or an alias that is resolved now.
    """

    model_config = ConfigDict(extra="forbid")

    version: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")


class ModelList(BaseModel):
    """Models, each name once: every one that is served, loading, failed to load or was unloaded; or those changed."""

    models: list[ModelInfo]
