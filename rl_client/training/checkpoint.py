"""Checkpoints: a folder of safetensors files and one JSON file, written whole or not at all. No pickle.

checkpoints/step-00000120/
    policy.safetensors, optimizer.safetensors, ...   one file for each group of tensors
    state.json                                       everything else
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl_client.errors import CheckpointError
from rl_client.training.best_checkpoint import BestCheckpoint
from rl_client.training.settings_checkpoint import CheckpointSettings

STATE_FILE = "state.json"
FORMAT = 1
"""Raised when a reader of older checkpoints could not make sense of a new one."""
_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run's whole state after a step.

    Attributes:
        step: The last step it contains.
        tensors: Named groups of named tensors.
        state: JSON values.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int, best_step: int | None = None) -> Path:
    """Write a checkpoint and drop the oldest ones.

    It appears under its name only when every byte is on disk; a crash before leaves the earlier ones as they were.

    Args:
        folder: The run's `checkpoints/`.
        checkpoint: What to write; a checkpoint of the same step is replaced.
        keep: How many of the newest stay, >= 1.
        best_step: A checkpoint that stays however old it is.

    Returns:
        Where it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    target = checkpoint_path(folder, checkpoint.step)
    draft = folder / f"{_UNFINISHED}{target.name}"
    draft.mkdir()
    for group, tensors in checkpoint.tensors.items():
        path = draft / f"{group}.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
        _fsync(path)
    write_json(draft / STATE_FILE, {"format": FORMAT, "step": checkpoint.step, "state": checkpoint.state})
    _fsync(draft)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _fsync(folder)
    for old in list_checkpoints(folder)[:-keep]:
        if best_step is None or old != checkpoint_path(folder, best_step):
            shutil.rmtree(old)
    return target


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: If a file is missing, damaged, or of another format.
    """
    try:
        content = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if content.get("format") != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {content.get('format')}; this version reads {FORMAT}")
    return Checkpoint(content["step"], tensors, content["state"])


def write_json(path: Path, value: Any) -> None:
    """Write JSON to disk, through the page cache; NaN and infinity are refused."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _fsync(path)


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CheckpointWriter:
    """Writes a run's checkpoints when they are due."""

    def __init__(
        self,
        folder: Path,
        settings: CheckpointSettings,
        pack: Callable[[int], Checkpoint],
        *,
        saved_step: int,
        best: BestCheckpoint | None = None,
        writes: bool = True,
    ) -> None:
        """Prepare to write.

        Args:
            folder: The run's `checkpoints/`.
            settings: How often, and how many stay.
            pack: Gives the run's state as it stands after a step.
            saved_step: The step that the run goes on from; it has a checkpoint, or is 0.
            best: Judges due checkpoints; the best one stays. Part of what `pack` gives.
            writes: False in a process beside the one that writes.
        """
        self._folder = folder
        self._settings = settings
        self._pack = pack
        self._saved_step = saved_step
        self._best = best or BestCheckpoint(None)
        self._writes = writes

    def save_if_due(self, step: int) -> None:
        """Write a checkpoint after every `every_steps`-th step."""
        if step % self._settings.every_steps == 0:
            self._best.judge(step)
            self.save(step)

    def save(self, step: int) -> None:
        """Write a checkpoint of this step unless it has one."""
        if step > self._saved_step and self._writes:
            save_checkpoint(self._folder, self._pack(step), keep=self._settings.keep, best_step=self._best.step)
            self._saved_step = step
            self._best.write(self._folder)
