"""Checkpoints of a training: safetensors files and one JSON file, written whole or not at all. No pickle.

WORK/NAME-DIGEST/step-00000120/
    model.safetensors, optimizer.safetensors, best.safetensors, random.safetensors
    state.json                                       everything else
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from reward_service.errors import StoreError
from reward_service.registry.files import sync_directory, write_durably

STATE_FILE = "state.json"
FORMAT = 1
"""Raised when this reader could not make sense of older checkpoints."""
_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training's whole state after a step.

    Attributes:
        tensors: Named groups of named tensors.
        state: JSON values.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, then drop the earlier ones.

    It appears under its name only when every byte is on disk; a crash before leaves the earlier ones as they were.

    Args:
        folder: Of this training alone.
        step: The last step that the checkpoint contains; one of the same step is left as it is.
        checkpoint: What to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished)
    target = folder / f"step-{step:08d}"
    if target.exists():
        return
    draft = folder / f"{_UNFINISHED}{target.name}"
    draft.mkdir()
    for group, tensors in checkpoint.tensors.items():
        path = draft / f"{group}.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
        sync_directory(path)
    content = {"format": FORMAT, "state": checkpoint.state}
    write_durably(draft / STATE_FILE, json.dumps(content, indent=1, allow_nan=False).encode())
    sync_directory(draft)
    draft.rename(target)
    sync_directory(folder)
    for old in _finished(folder)[:-1]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint of a training; None where there is none.

    Raises:
        StoreError: A file of it is missing, damaged, or of another format.
    """
    found = _finished(folder)
    if not found:
        return None
    path = found[-1]
    try:
        content = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"{path}: {error}; remove the folder to train from the start") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{path / STATE_FILE}: is not of format {FORMAT}; remove the folder to train from the start")
    return Checkpoint(tensors, content["state"])


def remove_checkpoints(folder: Path) -> None:
    """Forget a training."""
    shutil.rmtree(folder, ignore_errors=True)


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name on the CPU, tied ones once; a later step does not change them."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in _weights(model).items()}


@torch.no_grad()
def put_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a model.

    Raises:
        StoreError: Names or shapes are not exactly the model's.
    """
    weights = _weights(model)
    wrong = sorted(weights.keys() ^ tensors.keys())
    wrong += [name for name in weights.keys() & tensors.keys() if weights[name].shape != tensors[name].shape]
    if wrong:
        raise StoreError(f"the checkpoint's weights do not fit the model: {', '.join(wrong[:5])}")
    for name, tensor in tensors.items():
        weights[name].copy_(tensor)


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors `index.name`; its groups are built from the settings again."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value.detach().cpu() for index, entry in state.items() for name, value in entry.items()}


def unpack_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore an optimizer over the same parameters in the same order."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _finished(folder: Path) -> list[Path]:
    """Oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
