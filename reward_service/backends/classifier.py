"""A published checkpoint as a transformers module: the one way in which serving and exporting load it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from reward_proto.models import ModelKind
from reward_service.backends import dense_longformer
from reward_service.errors import StoreError


def architecture_for(kind: ModelKind) -> Any:
    """Transformers' family of classes for a kind of model."""
    is_span_model = kind is ModelKind.TOKEN_CLASSIFICATION
    return AutoModelForTokenClassification if is_span_model else AutoModelForSequenceClassification


def adapt(model: Any) -> None:
    """Make a classifier compute what it computes once: no cache of keys, and Longformer's attention in one piece.

    It must be called wherever a model is made, so that training, serving and exports compute the same.
    """
    model.config.use_cache = False
    if model.config.model_type == dense_longformer.MODEL_TYPE:
        dense_longformer.densify(model)


def load_classifier(
    model_dir: Path, kind: ModelKind, *, dtype: torch.dtype = torch.float32, attention: str | None = None
) -> Any:
    """Load a checkpoint in evaluation mode, on the CPU.

    Args:
        model_dir: `config.json` and safetensors; pickled weights and remote code are refused.
        kind: Chooses the head's class.
        dtype: What the weights are converted to.
        attention: transformers' attention implementation; its own choice when absent.

    Raises:
        StoreError: Weights are missing, or have other shapes than config.json says: transformers would draw them.
        ValueError: transformers does not know the architecture.
        OSError: Files are missing.
    """
    chosen = {} if attention is None else {"attn_implementation": attention}
    model, info = architecture_for(kind).from_pretrained(
        model_dir,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **chosen,
    )
    drawn = sorted([*info["missing_keys"], *(str(key) for key, *_ in info["mismatched_keys"])])
    if drawn:
        raise StoreError(
            f"{model_dir}: weights of {type(model).__name__} are missing or of another shape: "
            f"{', '.join(drawn[:5])} ({len(drawn)} in all)"
        )
    adapt(model)
    return model.eval()
