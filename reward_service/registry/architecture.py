"""What a config.json says of a model: its classes, its length, and whether it sees ahead."""

from pathlib import Path
from typing import Any

from reward_proto.models import ModelKind
from reward_service.domain import Readout
from reward_service.errors import StoreError
from reward_service.registry.files import CONFIG_FILE, read_json_object

DECODER_ONLY = frozenset(
    {
        "bloom",
        "cohere",
        "cohere2",
        "deepseek_v3",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm4",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "gpt_oss",
        "granite",
        "llama",
        "mistral",
        "mixtral",
        "mpt",
        "olmo2",
        "olmo3",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "stablelm",
        "starcoder2",
    }
)
"""Model types whose tokens see only those before them."""

_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "longformer", "camembert", "mpnet", "data2vec-text"}
)
"""Model types whose positions start after the pad id."""

_TOKEN_HEAD, _SEQUENCE_HEAD = "ForTokenClassification", "ForSequenceClassification"
_INDEPENDENT, _EXCLUSIVE, _REGRESSION = "multi_label_classification", "single_label_classification", "regression"
_UNNAMED = "LABEL_"


def read_config(directory: Path) -> dict[str, Any]:
    """A model's config.json.

    Raises:
        StoreError: It is missing or is not JSON.
    """
    return read_json_object(directory / CONFIG_FILE)


def is_decoder_only(config: dict[str, Any]) -> bool:
    """Whether a token of this model sees only those before it."""
    return config.get("model_type") in DECODER_ONLY or config.get("is_decoder") is True


def default_readout(config: dict[str, Any]) -> Readout:
    """The separator after each segment for a decoder-only model, the paper's one before it otherwise."""
    return Readout.AFTER if is_decoder_only(config) else Readout.BEFORE


def position_limit(config: dict[str, Any]) -> int | None:
    """Most tokens that a model's positions allow; None where its config.json states no limit."""
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(limit, int) or limit <= 0 or config.get("model_type") == "t5":
        return None
    if config.get("model_type") in _OFFSET_POSITIONS:
        return limit - int(config.get("pad_token_id") or 0) - 1
    return limit


def class_labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Class names by index from `id2label`; `LABEL_0`, `LABEL_1`, as transformers means by none.

    The order is that of the indices, never of the alphabet.

    Raises:
        ValueError: `id2label` does not number its names from 0 on, or `label2id` contradicts it.
    """
    given = config.get("id2label")
    if not given:
        count = config.get("num_labels")
        return tuple(f"{_UNNAMED}{index}" for index in range(count if isinstance(count, int) else 2))
    if not isinstance(given, dict) or sorted(given, key=str) != sorted(map(str, range(len(given)))):
        raise ValueError(f"id2label does not number its names from 0 on: {given}")
    labels = tuple(str(given[str(index)]) for index in range(len(given)))
    inverse = config.get("label2id")
    # transformers writes LABEL_0, LABEL_1 there when a model's number of labels was changed; such names say nothing.
    if isinstance(inverse, dict) and set(inverse) == set(labels):
        wrong = [name for index, name in enumerate(labels) if inverse[name] != index]
        if wrong:
            raise ValueError(f"id2label and label2id contradict each other on {', '.join(wrong)}")
    return labels


def are_named(labels: tuple[str, ...]) -> bool:
    """Whether labels are names, not transformers' `LABEL_0`, `LABEL_1`."""
    return any(label != f"{_UNNAMED}{index}" for index, label in enumerate(labels))


def has_independent_classes(config: dict[str, Any]) -> bool:
    """Whether config.json says that several classes may hold at once: a sigmoid for each, and no softmax."""
    return config.get("problem_type") == _INDEPENDENT


def check_architecture(
    directory: Path, config: dict[str, Any], kind: ModelKind, *, are_independent: bool = False
) -> None:
    """Compare the class that a checkpoint was saved from, and its loss, with what it is published as.

    Args:
        directory: The model's files.
        config: Its config.json.
        kind: What it is published as.
        are_independent: Whether its classes are published as not excluding each other.

    Raises:
        StoreError: It is a token classifier published as a sequence classifier, or the other way round; or its classes
            exclude each other, and are published as if they did not, or the other way round.
    """
    problem = config.get("problem_type")
    if kind.is_classifier and problem in (_REGRESSION, _EXCLUSIVE if are_independent else _INDEPENDENT):
        meant = "may hold at once" if are_independent else "exclude each other"
        raise StoreError(
            f"{directory / CONFIG_FILE}: problem_type is {problem}, but it is published as a {kind.value} model whose "
            f"classes {meant}"
        )
    wrong = _SEQUENCE_HEAD if kind is ModelKind.TOKEN_CLASSIFICATION else _TOKEN_HEAD
    for name in config.get("architectures") or []:
        if str(name).endswith(wrong):
            raise StoreError(f"{directory / CONFIG_FILE}: is a {name}, not a {kind.value} model")
