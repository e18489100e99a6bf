"""A run's folder: refuses to mix two runs, and says where a run can go on."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_client.errors import CheckpointError, RunFolderError
from rl_client.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, write_json

RUN_FILE = "run.json"
CHECKPOINTS_FOLDER = "checkpoints"
POLICY_FOLDER = "policy"
BEST_POLICY_FOLDER = "policy_best"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An opened run.

    Attributes:
        output: The folder.
        digest: Of the settings that change results.
        checkpoint: What to go on from; None at the start.
    """

    output: Path
    digest: str
    checkpoint: Checkpoint | None

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are written."""
        return self.output / CHECKPOINTS_FOLDER

    @property
    def policy(self) -> Path:
        """The finished policy."""
        return self.output / POLICY_FOLDER

    @property
    def start_step(self) -> int:
        """The last step done."""
        return self.checkpoint.step if self.checkpoint else 0

    def is_finished(self, steps: int) -> bool:
        """Whether the run did all of its steps and left its policy."""
        return self.policy.exists() and self.start_step >= steps

    def write_run_file(self, content: Mapping[str, Any]) -> None:
        """Write `run.json`: what was run, for people and for the checks of a resume."""
        write_json(self.output / RUN_FILE, {"config_digest": self.digest, **content})


def open_run(output: Path, digest: str, *, resume: bool) -> RunFolder:
    """Open a run's folder, new or to go on.

    Args:
        output: The folder; made if absent.
        digest: From `config_digest`.
        resume: Go on from the newest checkpoint; a run that was stopped before its first one starts over.

    Raises:
        RunFolderError: If the folder holds a run and `resume` is off.
        CheckpointError: If the newest checkpoint is damaged or was written under other settings.
    """
    held = [name for name in (RUN_FILE, CHECKPOINTS_FOLDER, POLICY_FOLDER) if (output / name).exists()]
    if held and not resume:
        raise RunFolderError(
            f"{output} holds a run already ({', '.join(held)}): resume it with --resume, "
            "or choose another output folder, or delete this one"
        )
    found = list_checkpoints(output / CHECKPOINTS_FOLDER)
    checkpoint = load_checkpoint(found[-1]) if found else None
    if checkpoint is not None and checkpoint.state["config_digest"] != digest:
        raise CheckpointError(
            f"{found[-1]} was written under other settings than the given ones (compare {output / RUN_FILE}); "
            "only paths, service, threads, checkpoint and the number of steps may change in a resumed run"
        )
    output.mkdir(parents=True, exist_ok=True)
    return RunFolder(output, digest, checkpoint)


def config_digest(settings: Mapping[str, Any]) -> str:
    """A digest of the settings that change results.

    Args:
        settings: JSON values, with what may change in a resumed run left out.
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_digests(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of files by path; of a model directory its weights and config, each with the name of the file."""
    files = [
        file
        for path in paths
        for file in (sorted([*path.glob("*.safetensors"), *path.glob("config.json")]) if path.is_dir() else [path])
    ]
    digests = {}
    for file in files:
        with file.open("rb") as content:
            digests[str(file)] = hashlib.file_digest(content, "sha256").hexdigest()
    return digests


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a draft name and move it into place when it is whole."""
    draft = target.with_name(f".unfinished-{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
