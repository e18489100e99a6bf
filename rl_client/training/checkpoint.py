"""Checkpoints: a folder of safetensors files and one JSON file, written whole or not at all. No pickle.

checkpoints/step-00000120/
    policy.safetensors, optimizer.safetensors, ...   one file for each group of tensors
    state.json                                       everything else
"""

import json
import logging
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl_client.errors import CheckpointError
from rl_client.training.best_checkpoint import BestCheckpoint
from rl_client.training.durable import (
    make_folder,
    move_folder,
    remove_drafts,
    remove_folder,
    write_folder,
    write_json,
    writing,
)
from rl_client.training.settings_checkpoint import CheckpointSettings

STATE_FILE = "state.json"
FORMAT = 1
"""Raised when a reader of older checkpoints could not make sense of a new one."""
DAMAGED = "damaged-"
"""Begins the name of a checkpoint that was set aside because it could not be read."""
_NAME = re.compile(r"step-(\d{8,})")
_CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


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

    It appears under its name only when every byte is on disk, and an old one vanishes whole; a crash before leaves the
    earlier ones as they were.

    Args:
        folder: The run's `checkpoints/`.
        checkpoint: What to write; a checkpoint of the same step is replaced.
        keep: How many of the newest stay, >= 1.
        best_step: A checkpoint that stays however old it is.

    Returns:
        Where it is.

    Raises:
        OutputError: If it cannot be written; no part of it stays on disk.
    """
    target = checkpoint_path(folder, checkpoint.step)
    with writing(f"the checkpoint {target}"):
        make_folder(folder)
        remove_drafts(folder)
        write_folder(target, lambda draft: _write_files(draft, checkpoint))
        for old in list_checkpoints(folder)[:-keep]:
            if best_step is None or old != checkpoint_path(folder, best_step):
                remove_folder(old)
    return target


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    for group, tensors in checkpoint.tensors.items():
        content = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(content, folder / f"{group}.safetensors")
    files = {file.name: _describe(file) for file in sorted(folder.iterdir())}
    state = {"format": FORMAT, "step": checkpoint.step, "files": files, "state": checkpoint.state}
    write_json(folder / STATE_FILE, state)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return [path for _, path in _numbered(folder)]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: If a file is missing, damaged, or of another format.
    """
    try:
        content = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CheckpointError(f"checkpoint {path} has format {content['format']}; this version reads {FORMAT}")
        # Checkpoints of earlier versions do not list their files.
        for name, description in content.get("files", {}).items():
            if (found := _describe(path / name)) != description:
                raise ValueError(f"{name} was written as {description} and is {found}")
        tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
        return Checkpoint(content["step"], tensors, content["state"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error!r}") from error


def load_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is whole, and warn of those that are not.

    Returns:
        None if there is none at all.

    Raises:
        CheckpointError: If there are some, and none can be read.
    """
    damages = []
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            damages.append(str(error))
            continue
        for damage in damages:
            logger.warning("%s; going on from step %d", damage, checkpoint.step)
        return checkpoint
    if damages:
        raise CheckpointError("\n".join(damages))
    return None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Each checkpoint with its step, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def _describe(file: Path) -> dict[str, int]:
    """A file's size and CRC-32, by which what a disk lost or someone removed is noticed."""
    crc = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return {"bytes": file.stat().st_size, "crc32": crc}


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
        packs: bool = True,
    ) -> None:
        """Prepare to write; checkpoints past `saved_step`, which could not be read, are set aside.

        Args:
            folder: The run's `checkpoints/`.
            settings: How often, and how many stay.
            pack: Gives the run's state as it stands after a step.
            saved_step: The step that the run goes on from; it has a checkpoint, or is 0.
            best: Judges due checkpoints; the best one stays. Part of what `pack` gives.
            writes: False in a process beside the one that writes.
            packs: Whether that one asks it for its part of the state.
        """
        self._folder = folder
        self._settings = settings
        self._pack = pack
        self._saved_step = saved_step
        self._best = best or BestCheckpoint(None)
        self._writes = writes
        self._packs = packs
        self._before: Callable[[], None] = lambda: None
        if self._best.step is not None and not checkpoint_path(folder, self._best.step).is_dir():
            logger.warning("the best checkpoint, of step %d, is gone: another one will be the best", self._best.step)
            self._best.forget()
        if writes and saved_step:
            with writing(f"{folder}"):
                for step, path in _numbered(folder):
                    if step > saved_step:
                        move_folder(path, path.with_name(f"{DAMAGED}{path.name}"))
                self._best.write(folder)  # a crash may have come between the checkpoint and this

    def precede(self, act: Callable[[], None]) -> None:
        """Have this done before each checkpoint: whatever is to be on disk no later than it."""
        self._before = act

    def save_if_due(self, step: int) -> None:
        """Write a checkpoint after every `every_steps`-th step."""
        if step % self._settings.every_steps == 0:
            self._best.judge(step)
            self.save(step)

    def save(self, step: int) -> None:
        """Write a checkpoint of this step unless it has one."""
        if step <= self._saved_step or not (self._writes or self._packs):
            return
        packed = self._pack(step)
        if self._writes:
            self._before()
            save_checkpoint(self._folder, packed, keep=self._settings.keep, best_step=self._best.step)
        self._saved_step = step
        if self._writes:
            with writing(f"{self._folder}"):
                self._best.write(self._folder)
