"""Checkpoints as older trainers left them, pickled weights and all, made into directories that can be published."""

import json
import pickle
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from reward_service.errors import StoreError
from reward_service.registry.architecture import class_labels, read_config
from reward_service.registry.files import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    read_json_object,
    staging,
)
from reward_service.registry.weights import HEAD_WEIGHTS

PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX_FILE = "pytorch_model.bin.index.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""What is copied besides config.json; everything else is left out."""

_VOCABULARIES = (
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spm.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
"""Any of these sets is enough to build a tokenizer.json."""

_BUFFER = ".embeddings.position_ids"
"""A counter that transformers once stored with the weights."""


def convert_checkpoint(directory: Path, out: Path, drop_labels: Collection[str] = ()) -> list[str]:
    """Write a checkpoint as safetensors with a tokenizer.json.

    Pickles are read by `torch.load(weights_only=True)`, which builds tensors and calls nothing else.

    Args:
        directory: config.json, weights (pickled or not, in one file or in shards), a tokenizer's files.
        out: A directory that does not exist yet.
        drop_labels: Classes that were never trained, such as the paper's `Ignore`, whose tokens counted in no loss.
            Their rows of the head go, so that probabilities are over the classes that were.

    Returns:
        What was done, a line each.

    Raises:
        StoreError: Something is missing, or is refused; nothing is written.
    """
    if out.exists():
        raise StoreError(f"{out}: exists already")
    _refuse_links(directory)
    config = read_config(directory)
    if "auto_map" in config:
        raise StoreError(f"{directory / CONFIG_FILE}: 'auto_map' asks for custom code, which is refused")
    weights, sources = read_weights(directory)
    told = [f"{', '.join(path.name for path in sources)}: {len(weights)} tensors, written as {WEIGHTS_FILE}"]
    for label in drop_labels:
        config, weights = drop_class(directory, config, weights, label)
        told.append(f"{label}: left out of the head; its classes are {', '.join(class_labels(config))}")
    copied = [name for name in TOKENIZER_FILES if (directory / name).is_file()]
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging(out.parent) as staged:
        save_file(weights, staged / WEIGHTS_FILE, metadata={"format": "pt"})
        (staged / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in copied:
            shutil.copyfile(directory / name, staged / name)
        if TOKENIZER_FILE not in copied:
            _build_tokenizer(directory, staged / TOKENIZER_FILE)
            told.append(f"{TOKENIZER_FILE}: built from {', '.join(copied)}")
        staged.rename(out)
    known = {CONFIG_FILE, PICKLED_INDEX_FILE, WEIGHTS_INDEX_FILE, *copied, *(path.name for path in sources)}
    told.extend(f"{name}: left out" for name in sorted({path.name for path in directory.iterdir()} - known))
    return told


def read_weights(directory: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """A checkpoint's tensors, safetensors before pickles, and the files they came from.

    Raises:
        StoreError: There are none, a shard is missing, or a pickle holds more than tensors.
    """
    for single, index in ((WEIGHTS_FILE, WEIGHTS_INDEX_FILE), (PICKLED_FILE, PICKLED_INDEX_FILE)):
        if (directory / single).exists():
            sources = [directory / single]
        elif (directory / index).exists():
            places = read_json_object(directory / index).get("weight_map")
            if not isinstance(places, dict):
                raise StoreError(f"{directory / index}: has no weight_map")
            sources = [directory / Path(name).name for name in sorted(set(places.values()))]
        else:
            continue
        found: dict[str, Tensor] = {}
        for source in sources:
            found.update(load_file(source) if single == WEIGHTS_FILE else _unpickle(source))
        # Copies, since tensors that share their memory cannot be written.
        kept = {name: tensor.clone().contiguous() for name, tensor in found.items() if not name.endswith(_BUFFER)}
        return kept, sources
    raise StoreError(f"{directory / PICKLED_FILE}: missing, and {WEIGHTS_FILE} too")


def drop_class(
    directory: Path, config: dict[str, Any], weights: dict[str, Tensor], label: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A config and weights without one class of the head.

    Raises:
        StoreError: There is no such class, or no head.
    """
    try:
        labels = class_labels(config)
    except ValueError as error:
        raise StoreError(f"{directory / CONFIG_FILE}: {error}") from error
    head = next((name for name in HEAD_WEIGHTS if name in weights), None)
    if label not in labels or head is None or len(weights[head]) != len(labels):
        raise StoreError(f"{directory / CONFIG_FILE}: no class {label!r} in a head of {', '.join(labels)}")
    kept = [index for index, name in enumerate(labels) if name != label]
    names = [labels[index] for index in kept]
    rows = {name: weights[name][kept] for name in (head, head.replace(".weight", ".bias")) if name in weights}
    numbered = {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }
    return {**config, **numbered}, {**weights, **rows}


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: missing") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path}: is no file of weights alone, and is not read otherwise: {first}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise StoreError(f"{path}: holds more than the tensors of a model")
    return content


def _build_tokenizer(directory: Path, target: Path) -> None:
    # Without them transformers builds a tokenizer that knows no word.
    if not any(all((directory / name).is_file() for name in names) for names in _VOCABULARIES):
        raise StoreError(
            f"{directory / TOKENIZER_FILE}: missing, and cannot be built: vocab.json and merges.txt are too"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            directory, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        tokenizer.backend_tokenizer.save(str(target))
    except Exception as error:  # the libraries below raise bare Exception, and this is their first use of these files
        raise StoreError(f"{directory / TOKENIZER_FILE}: missing, and cannot be built: {error}") from error


def _refuse_links(directory: Path) -> None:
    if not directory.is_dir():
        raise StoreError(f"{directory}: no such directory")
    for path in sorted(directory.iterdir()):
        if path.is_symlink() and path.resolve().parent != directory.resolve():
            raise StoreError(f"{path}: a link out of the directory is refused")
