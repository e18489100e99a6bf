"""Which parts of an encoder are kept, which are trained, and how much of them is dropped."""

from typing import Any

from torch import nn
from transformers import PretrainedConfig

from reward_service.errors import StoreError

_DROPOUT_ENDINGS = ("dropout", "dropout_prob", "dropout_rate")


def change_config(config: PretrainedConfig, *, layers: int | None, dropout: float | None) -> None:
    """Make a configuration that of its first layers alone, and set its dropouts; in place.

    Args:
        config: Of the whole encoder.
        layers: How many layers to keep; all when absent.
        dropout: Every probability of dropout; unchanged when absent.

    Raises:
        StoreError: It has fewer layers.
    """
    if layers is not None:
        count = config.num_hidden_layers
        if layers > count:
            raise StoreError(f"the encoder has {count} layers, not {layers}")
        for name, value in config.to_dict().items():
            # What a configuration tells of each layer is a list: Longformer's windows, ModernBERT's kinds of attention.
            if isinstance(value, list) and len(value) == count and name != "architectures":
                setattr(config, name, value[:layers])
        config.num_hidden_layers = layers
    if dropout is not None:
        for name, value in config.to_dict().items():
            if name.endswith(_DROPOUT_ENDINGS) and isinstance(value, int | float):
                setattr(config, name, dropout)


def freeze(model: nn.Module, layers: int) -> None:
    """Leave the embeddings and the first layers out of training.

    Args:
        model: A transformers model with a head.
        layers: How many layers to freeze.

    Raises:
        StoreError: The encoder has fewer, or its layers cannot be found.
    """
    base: Any = model.base_model
    count = base.config.num_hidden_layers
    if layers > count:
        raise StoreError(f"frozen_layers {layers} is over the encoder's {count} layers")
    stacks = [
        (name, part) for name, part in base.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    embeddings = [part for name, part in base.named_children() if "embed" in name or name in {"wte", "wpe"}]
    if not stacks or not embeddings:
        raise StoreError(f"frozen_layers: the layers of a {type(base).__name__} cannot be told from the rest")
    # The outermost list is the stack of layers; a layer may hold lists as long by chance.
    _, stack = min(stacks, key=lambda found: found[0].count("."))
    for part in [*embeddings, *list(stack)[:layers]]:
        part.requires_grad_(False)
