"""A manifest for a directory that some other program trained: what its config.json says, and what the caller says."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.errors import StoreError
from reward_service.registry.files import CONFIG_FILE, TOKENIZER_FILE, check_model_directory, read_json_object
from reward_service.registry.manifest import Manifest, SegmenterSpec

DEFAULT_MAX_TOKENS = 512
"""Longest input where neither the caller nor config.json states one."""

OK_LABELS = ("ok", "no_error", "no-error", "no error", "o", "good", "correct")
"""Class names, in lower case, that are taken for "no error" when the caller names none."""

_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "longformer", "camembert", "mpnet", "data2vec-text"}
)
"""Model types whose positions start after the pad id."""


def describe(
    directory: Path,
    *,
    name: str,
    kind: ModelKind,
    granularity: Granularity,
    template: str,
    ok_label: str | None = None,
    max_tokens: int | None = None,
    cut_field: str | None = None,
) -> Manifest:
    """Write a manifest for a Hugging Face directory.

    Args:
        directory: config.json, model.safetensors, tokenizer.json.
        name: The model's name in the store.
        kind: What its head puts out.
        granularity: What its segments are.
        template: The input's prefix.
        ok_label: The class that means "no error"; found among the usual names, or else the last class, when absent.
        max_tokens: Longest input; what the model's positions allow when absent.
        cut_field: The field that may be cut to fit.

    Raises:
        StoreError: The directory is refused, or the parts do not fit each other.
    """
    check_model_directory(directory)
    config = read_json_object(directory / CONFIG_FILE)
    limit = position_limit(config)
    if max_tokens is not None and limit is not None and max_tokens > limit:
        raise StoreError(f"{directory / CONFIG_FILE}: has {limit} positions, fewer than max_tokens {max_tokens}")
    labels = class_labels(config) if kind.is_classifier else ()
    try:
        manifest = Manifest(
            name=name,
            kind=kind,
            granularity=granularity,
            template=template,
            labels=labels,
            ok_label=(ok_label or find_ok_label(labels)) if labels else "",
            max_tokens=max_tokens or limit or DEFAULT_MAX_TOKENS,
            cut_field=cut_field,
            segmenter=SegmenterSpec(version=SEGMENTER_VERSION),
        )
        InputEncoder(Tokenizer.from_file(str(directory / TOKENIZER_FILE)), manifest.input_spec)
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors())
        raise StoreError(f"{directory}: {faults}") from error
    except Exception as error:  # the tokenizers library raises bare Exception
        raise StoreError(f"{directory}: {error}") from error
    return manifest


def class_labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Class names by index from config.json's `id2label`; `LABEL_0`, `LABEL_1`, as transformers means by none."""
    given = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(2)}
    return tuple(str(given[index]) for index in sorted(given, key=int))


def find_ok_label(labels: tuple[str, ...]) -> str:
    """The label that means "no error" by its name, or else the last one."""
    return next((label for label in labels if label.lower() in OK_LABELS), labels[-1])


def position_limit(config: dict[str, Any]) -> int | None:
    """Most tokens that a model's positions allow; None where its config.json states no limit."""
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(limit, int) or limit <= 0 or config.get("model_type") == "t5":
        return None
    if config.get("model_type") in _OFFSET_POSITIONS:
        return limit - int(config.get("pad_token_id") or 0) - 1
    return limit
