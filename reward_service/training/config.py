"""Settings of `reward-service train`: one YAML file, every fault of which is reported at once."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import parse_template
from reward_service.training.dataset import TEMPLATE_FIELDS
from reward_service.training.pairs import PairKind


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Feedback files.

    Attributes:
        format: Only QA-Feedback's own JSON.
        train: Files to learn from.
        dev: Held-out files for the printed figures and for choosing the best epoch.
    """

    format: Literal["qa_feedback"] = "qa_feedback"
    train: list[Path] = Field(min_length=1)
    dev: list[Path] = Field(min_length=1)


class TrainingConfig(_Strict):
    """How a model is trained.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples a step. A pairwise model reads four predictions for each.
        learning_rate: AdamW's peak rate, after the warm-up; it then falls to 0 in a straight line.
        weight_decay: AdamW's, on matrices only (not on biases and norms).
        warmup_ratio: Share of the steps in which the rate rises, in [0, 1].
        max_grad_norm: Gradients are scaled down to this norm.
        max_tokens: Longest input, special tokens included; it becomes the served model's limit.
        cut_field: The template field that may be cut at its end to fit; applies to models whose template has it.
        keep_best: Keep the epoch with the lowest held-out loss; the last one otherwise.
    """

    epochs: int = Field(default=4, gt=0)
    batch_size: int = Field(default=32, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=256, gt=0)
    cut_field: str | None = None
    keep_best: bool = True


class ModelConfig(_Strict):
    """One reward model: what it reads, what counts as an error, or which pairs teach it.

    Attributes:
        kind: `token_classification` (labels from error spans) or `sequence_regression` (from pairs).
        granularity: What its segments are; `sequence` for a regressor.
        template: The input's prefix; `{question}` and `{context}` are the fields that feedback files give.
        error_types: Span errors that make a segment an error.
        ignore_error_types: A segment whose only errors are these is left out of the loss.
        min_error_words: Error spans with fewer words are dropped.
        pairs: `preference` (the six human comparisons) or `coverage` (relevant passage sentences covered).
        coverage_similarity: Share of a sub-sentence's content words that a passage sentence must hold, in (0, 1].
        training: Overrides of the file's `training`.
    """

    kind: Literal[ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION]
    granularity: Granularity
    template: str
    error_types: frozenset[str] = frozenset()
    ignore_error_types: frozenset[str] = frozenset()
    min_error_words: int = Field(default=0, ge=0)
    pairs: PairKind | None = None
    coverage_similarity: float = Field(default=0.85, gt=0, le=1)
    training: TrainingConfig

    @field_validator("template")
    @classmethod
    def _template_is_fillable(cls, template: str) -> str:
        for _, name in parse_template(template):
            if name is not None and name not in TEMPLATE_FIELDS:
                raise ValueError(f"feedback files give {', '.join(TEMPLATE_FIELDS)}, not {name!r}")
        return template

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Self:
        if self.kind is ModelKind.TOKEN_CLASSIFICATION:
            if not self.error_types or self.pairs:
                raise ValueError("a token_classification model needs error_types and takes no pairs")
            if self.error_types & self.ignore_error_types:
                raise ValueError("error_types and ignore_error_types overlap")
        elif self.pairs is None or self.error_types or self.ignore_error_types or self.min_error_words:
            raise ValueError("a sequence_regression model needs pairs and takes no error types")
        elif self.granularity is not Granularity.SEQUENCE:
            raise ValueError("a sequence_regression model scores the whole sequence")
        return self

    @property
    def cut_field(self) -> str | None:
        """The training's cut field, where this template has it."""
        names = {name for _, name in parse_template(self.template)}
        return self.training.cut_field if self.training.cut_field in names else None


class TrainConfig(_Strict):
    """The whole file.

    Attributes:
        store: Where versions are published.
        encoder: A Hugging Face directory: config.json, model.safetensors, tokenizer.json. The head is new.
        seed: Seeds heads, dropout and the order of examples.
        threads: torch's threads; its default when absent.
        device: `auto` takes CUDA where there is one.
        precision: `bf16` runs the forward pass under autocast; weights stay fp32.
        data: Feedback files.
        models: By name. Each model's `training` holds the file's `training` with its own overrides.
    """

    store: Path
    encoder: Path
    seed: int = 0
    threads: int | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    models: dict[str, ModelConfig] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _models_inherit_training(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
            return content
        shared = content.get("training") or {}
        try:
            TrainingConfig.model_validate(shared)
        except ValidationError:
            shared = {}  # Its faults are told in their own place, and not again for each model.
        models: dict[str, Any] = {}
        for name, model in content["models"].items():
            models[name] = model
            if isinstance(model, dict) and isinstance(model.get("training", {}), dict):
                models[name] = {**model, "training": {**shared, **model.get("training", {})}}
        return {**content, "models": models}
