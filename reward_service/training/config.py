"""Settings of `reward-service train`: one YAML file, every fault of which is reported at once."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.template import parse_template, template_fields
from reward_service.domain import Pooling
from reward_service.training.data_files import DataFileField
from reward_service.training.feedback import FeedbackFormat, PairKind
from reward_service.training.labels import LABELS
from reward_service.training.qa_feedback import TEMPLATE_FIELDS

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Strict):
    """Feedback files.

    Attributes:
        format: QA-Feedback's own JSON, or plain JSONL.
        train: Files to learn from, or slices of files: `all.json[200:]`.
        dev: Held-out files for the printed figures and for choosing the best epoch.
    """

    format: FeedbackFormat = "qa_feedback"
    train: list[DataFileField] = Field(min_length=1)
    dev: list[DataFileField] = Field(min_length=1)


class TrainingConfig(_Strict):
    """How a model is trained.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples a step, over all processes. A pairwise model reads every response of each.
        micro_batch_size: Examples that go through the model at once; a step adds up the gradients. All when absent.
        learning_rate: AdamW's peak rate, after the warm-up; it then falls to 0 in a straight line.
        weight_decay: AdamW's, on matrices only (not on biases and norms).
        warmup_ratio: Share of the steps in which the rate rises, in [0, 1].
        max_grad_norm: Gradients are scaled down to this norm.
        max_tokens: Longest input, special tokens included; it becomes the served model's limit.
        cut_field: The template field that may be cut at its end to fit; applies to models whose template has it.
        keep_best: Keep the epoch with the lowest held-out loss; the last one otherwise.
        patience: Stop after so many epochs in a row without a lower held-out loss; never when absent.
        layers: Keep only so many of the encoder's layers, from the first on; all of them when absent.
        frozen_layers: Leave the embeddings and so many layers as they are; train all when absent.
        dropout: Every dropout of the encoder, in [0, 1); those of its config.json when absent.
    """

    epochs: int = Field(default=4, gt=0)
    batch_size: int = Field(default=32, gt=0)
    micro_batch_size: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=256, gt=0)
    cut_field: str | None = None
    keep_best: bool = True
    patience: int | None = Field(default=None, gt=0)
    layers: int | None = Field(default=None, gt=0)
    frozen_layers: int | None = Field(default=None, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _frozen_layers_are_kept(self) -> Self:
        if self.layers is not None and (self.frozen_layers or 0) > self.layers:
            raise ValueError(f"frozen_layers {self.frozen_layers} is over layers {self.layers}")
        return self

    @model_validator(mode="after")
    def _patience_is_for_the_best(self) -> Self:
        if self.patience is not None and not self.keep_best:
            raise ValueError("patience waits for a better epoch, which keep_best: false would not keep")
        return self


class InputConfig(_Strict):
    """What a model or a network reads, and how it is trained.

    Attributes:
        language: Of the responses, for the segmenter: an ISO 639 code.
        template: The input's prefix. QA-Feedback's files give `{question}` and `{context}`, JSONL what its rows hold.
        training: Overrides of the file's `training`.
    """

    language: str = Field(default="en", pattern=r"^[a-z]{2,3}$")
    template: str
    training: TrainingConfig

    @field_validator("template")
    @classmethod
    def _template_is_fillable(cls, template: str) -> str:
        parse_template(template)
        return template

    @property
    def cut_field(self) -> str | None:
        """The training's cut field, where this template has it."""
        return self.training.cut_field if self.training.cut_field in self.fields else None

    @property
    def fields(self) -> frozenset[str]:
        """The names that the template needs."""
        return template_fields(self.template)


class ModelConfig(InputConfig):
    """One reward model: what it reads, what counts as an error, or which pairs teach it.

    Attributes:
        kind: `token_classification` (labels from error spans) or `sequence_regression` (from pairs).
        granularity: What its segments are; `sequence` for a regressor.
        pooling: What of a segment is read: its separator as in the paper, the mean of its separator and its tokens, or,
            for a regressor, their sum.
        error_types: Span errors that make a segment an error.
        ignore_error_types: A segment whose only errors are these is left out of the loss.
        min_error_words: Error spans with fewer words are dropped.
        class_weights: What a segment of each class counts in the loss: all the same, or as much as makes the classes
            weigh the same, or given figures.
        pairs: `preference` (the six human comparisons) or `coverage` (relevant passage sentences covered).
        coverage_similarity: Share of a sub-sentence's content words that a passage sentence must hold, in (0, 1].
    """

    kind: Literal[ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION]
    granularity: Granularity
    pooling: Pooling = Pooling.SEPARATOR
    error_types: frozenset[str] = frozenset()
    ignore_error_types: frozenset[str] = frozenset()
    min_error_words: int = Field(default=0, ge=0)
    class_weights: Literal["none", "balanced"] | dict[str, Weight] = "none"
    pairs: PairKind | None = None
    coverage_similarity: float = Field(default=0.85, gt=0, le=1)

    @field_validator("class_weights")
    @classmethod
    def _every_class_has_a_weight(cls, weights: str | dict[str, float]) -> str | dict[str, float]:
        if isinstance(weights, dict) and weights.keys() != set(LABELS):
            raise ValueError(f"give a weight to each of {', '.join(LABELS)}")
        return weights

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Self:
        if self.kind is ModelKind.TOKEN_CLASSIFICATION:
            if not self.error_types or self.pairs:
                raise ValueError("a token_classification model needs error_types and takes no pairs")
            if self.pooling is Pooling.SUM:
                raise ValueError("a token_classification model reads separators or means: a sum grows with the segment")
            if self.error_types & self.ignore_error_types:
                raise ValueError("error_types and ignore_error_types overlap")
        elif self.pairs is None or self.error_types or self.ignore_error_types or self.min_error_words:
            raise ValueError("a sequence_regression model needs pairs and takes no error types")
        elif self.class_weights != "none":
            raise ValueError("a sequence_regression model has no classes to weigh")
        elif self.granularity is not Granularity.SEQUENCE:
            raise ValueError("a sequence_regression model scores the whole sequence")
        return self


class NetworkConfig(InputConfig):
    """Several reward models as the heads of one network, whose one forward pass gives all their scores.

    Attributes:
        heads: Names of the file's models, two or more. Each head learns what its model's settings say, but reads the
            network's input, with separators before the segments of all the heads.
        weights: Of each head's loss in the sum; 1 where absent.
    """

    heads: tuple[str, ...] = Field(min_length=2)
    weights: dict[str, Weight] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _weights_are_of_heads(self) -> Self:
        if len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads are of different names, got {', '.join(self.heads)}")
        unknown = sorted(set(self.weights) - set(self.heads))
        if unknown:
            raise ValueError(f"weights of what is no head: {', '.join(unknown)}")
        return self


class TrainConfig(_Strict):
    """The whole file.

    Attributes:
        store: Where versions are published.
        encoder: A Hugging Face directory: config.json, model.safetensors, tokenizer.json. The head is new.
        seed: Seeds heads, dropout and the order of examples.
        threads: torch's threads; its default when absent.
        device: `auto` takes CUDA where there is one.
        precision: `bf16` runs the forward pass under autocast; weights stay fp32.
        work: Where unfinished trainings leave checkpoints; `training` beside the store when absent.
        checkpoint_steps: Write a checkpoint after so many steps too, and not only after each epoch.
        reports: Where a page of held-out figures is written for each model; `reports` beside the store when absent.
        data: Feedback files.
        models: By name. Each model's `training` holds the file's `training` with its own overrides.
        networks: By name; models that share one network. `training` as in `models`.
    """

    store: Path
    encoder: Path
    seed: int = 0
    threads: int | None = Field(default=None, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    work: Path | None = None
    checkpoint_steps: int | None = Field(default=None, gt=0)
    reports: Path | None = None
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    models: dict[str, ModelConfig] = Field(min_length=1)
    networks: dict[str, NetworkConfig] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _models_inherit_training(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        shared = content.get("training") or {}
        try:
            TrainingConfig.model_validate(shared)
        except ValidationError:
            shared = {}  # Its faults are told in their own place, and not again for each model.
        merged = dict(content)
        for section in ("models", "networks"):
            if not isinstance(content.get(section), dict):
                continue
            merged[section] = {
                name: {**entry, "training": {**shared, **entry.get("training", {})}}
                if isinstance(entry, dict) and isinstance(entry.get("training", {}), dict)
                else entry
                for name, entry in content[section].items()
            }
        return merged

    @field_validator("models")
    @classmethod
    def _feedback_gives_what_models_need(
        cls, models: dict[str, ModelConfig], info: ValidationInfo
    ) -> dict[str, ModelConfig]:
        data = info.data.get("data")
        if not isinstance(data, DataConfig):
            return models  # It has faults of its own.
        faults = []
        for name, model in models.items():
            if data.format == "jsonl" and model.pairs == "coverage":
                faults.append(f"{name}.pairs: jsonl feedback gives preferences, not coverage")
            absent = sorted(model.fields - set(TEMPLATE_FIELDS)) if data.format == "qa_feedback" else []
            faults.extend(
                f"{name}.template: qa_feedback gives {', '.join(TEMPLATE_FIELDS)}, not {field!r}" for field in absent
            )
        if faults:
            raise ValueError("; ".join(faults))
        return models

    @field_validator("networks")
    @classmethod
    def _heads_are_models(cls, networks: dict[str, NetworkConfig], info: ValidationInfo) -> dict[str, NetworkConfig]:
        models, data = info.data.get("models"), info.data.get("data")
        if models is None or not isinstance(data, DataConfig):
            return networks  # They have faults of their own.
        faults = [f"{name}: a model has this name" for name in networks if name in models]
        for name, network in networks.items():
            faults.extend(f"{name}.heads: {head!r} is none of models" for head in network.heads if head not in models)
            absent = sorted(network.fields - set(TEMPLATE_FIELDS)) if data.format == "qa_feedback" else []
            faults.extend(
                f"{name}.template: qa_feedback gives {', '.join(TEMPLATE_FIELDS)}, not {field!r}" for field in absent
            )
        if faults:
            raise ValueError("; ".join(faults))
        return networks

    def entry(self, name: str) -> InputConfig:
        """One of the models or networks."""
        return self.networks[name] if name in self.networks else self.models[name]

    @property
    def work_folder(self) -> Path:
        """Where unfinished trainings leave checkpoints."""
        return self.work or self.store.parent / "training"

    @property
    def reports_folder(self) -> Path:
        """Where reports are written."""
        return self.reports or self.store.parent / "reports"
