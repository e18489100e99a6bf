"""A new head on an encoder's weights, and its way to disk."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from reward_proto.models import ModelKind
from reward_service.backends.classifier import adapt, architecture_for
from reward_service.domain import Batch
from reward_service.errors import StoreError
from reward_service.registry.checkpoint import read_tokenizer
from reward_service.registry.files import CONFIG_FILE, TOKENIZER_FILE, check_directory
from reward_service.training.encoder_parts import change_config

SIDE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
"""Files of a tokenizer besides tokenizer.json, which are published with it for readers that want them."""


def silence_transformers() -> None:
    """Turn off transformers' progress bars and load reports; what matters of them is checked by `build_model`."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def load_tokenizer(encoder_dir: Path) -> Tokenizer:
    """Read an encoder's tokenizer.json.

    Raises:
        StoreError: It is missing or malformed, or the directory holds what must not be loaded.
    """
    check_directory(encoder_dir, ignore_folders=True)
    return read_tokenizer(encoder_dir)


def build_model(
    encoder_dir: Path,
    kind: ModelKind,
    labels: tuple[str, ...],
    *,
    pad_id: int,
    vocab_size: int,
    seed: int,
    attention: str = "sdpa",
    layers: int | None = None,
    dropout: float | None = None,
) -> nn.Module:
    """Load an encoder's weights under a new head.

    A checkpoint with another head will do: that head is dropped.

    Args:
        encoder_dir: config.json, model.safetensors, tokenizer.json.
        kind: Chooses the head.
        labels: Class names by index; empty for a regressor.
        pad_id: The tokenizer's id for padding.
        vocab_size: Ids that the tokenizer can give.
        seed: Draws the head's weights.
        attention: transformers' attention implementation for training, where the architecture has it; eager otherwise.
        layers: How many of the encoder's layers to keep, from the first on; all when absent.
        dropout: Every probability of dropout; the encoder's own when absent.

    Raises:
        StoreError: The directory holds what must not be loaded, lacks weights of the encoder itself, or its
            vocabulary is smaller than the tokenizer's.
    """
    check_directory(encoder_dir, ignore_folders=True)
    names = labels or ("score",)
    config = AutoConfig.from_pretrained(
        encoder_dir,
        trust_remote_code=False,
        local_files_only=True,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        pad_token_id=pad_id,
    )
    change_config(config, layers=layers, dropout=dropout)
    if config.vocab_size < vocab_size:
        raise StoreError(
            f"{encoder_dir / CONFIG_FILE}: {config.vocab_size} embeddings, but the tokenizer has {vocab_size} ids"
        )
    architecture = architecture_for(kind)
    if not _can(architecture, config, attention):
        attention = "eager"
    torch.manual_seed(seed)
    try:
        model, info = architecture.from_pretrained(
            encoder_dir,
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise StoreError(f"{encoder_dir}: {error}") from error
    prefix = f"{model.base_model_prefix}."
    absent = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    # BERT's pooler stands in the base model's name space, but token classifiers and masked LMs are saved without it.
    lost = sorted(key for key in absent if key.startswith(prefix) and ".pooler." not in key)
    if lost:
        raise StoreError(
            f"{encoder_dir}: weights of the encoder are missing: {', '.join(lost[:5])} ({len(lost)} in all)"
        )
    adapt(model)
    module: nn.Module = model
    return module


def _can(architecture: Any, config: Any, attention: str) -> bool:
    """Whether a class of transformers has an attention implementation. Of the fused ones only torch's is asked for."""
    try:
        return attention != "sdpa" or bool(architecture._model_mapping[type(config)]._supports_sdpa)
    except KeyError:  # Unknown to transformers, as the call that follows tells.
        return True


def save_model(model: Any, encoder_dir: Path, target: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files to a directory."""
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    for name in (TOKENIZER_FILE, *SIDE_FILES):
        if (encoder_dir / name).exists():
            shutil.copyfile(encoder_dir / name, target / name)


class ModuleBackend:
    """A model that is being trained, behind the seam that the service's own backends stand behind."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.runtime = "torch-fp32"
        self._model = model
        self._device = device

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits in evaluation mode; the model's mode is put back. See `core.backend.Backend`."""
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(batch.input_ids).to(self._device),
                attention_mask=torch.from_numpy(batch.attention_mask).to(self._device),
            )
        self._model.train(was_training)
        logits: NDArray[np.float32] = output.logits.float().cpu().numpy()
        return logits

    def close(self) -> None:
        """Nothing to free: the trainer owns the model."""
