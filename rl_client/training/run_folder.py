"""A run's folder: refuses to mix two runs, and says where a run can go on."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_client.errors import CheckpointError, RunFolderError
from rl_client.folder_lock import hold_lock
from rl_client.training.checkpoint import Checkpoint, checkpoint_path, load_newest
from rl_client.training.durable import make_folder, write_folder, write_json, writing

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
CHECKPOINTS_FOLDER = "checkpoints"
POLICY_FOLDER = "policy"
BEST_POLICY_FOLDER = "policy_best"
VALUE_FOLDER = "value"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An opened run.

    Attributes:
        output: The folder.
        digest: Of the settings that change results.
        checkpoint: What to go on from; None at the start.
        policy_step: The step whose policy lies in `policy/`; 0 while there is none.
    """

    output: Path
    digest: str
    checkpoint: Checkpoint | None
    policy_step: int = 0

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
        """Whether the run did all of its steps and left their policy."""
        return self.start_step >= steps and self.policy_step >= steps

    def write_run_file(self, content: Mapping[str, Any]) -> None:
        """Write `run.json`: what was run, for people and for the checks of a resume.

        Raises:
            OutputError: If it cannot be written.
        """
        with writing(f"{self.output / RUN_FILE}"):
            whole = {"config_digest": self.digest, "policy_step": self.policy_step, **content}
            write_json(self.output / RUN_FILE, whole)

    def leave(self, name: str, write: Callable[[Path], None]) -> None:
        """Leave a folder of results, in place of an earlier one of that name.

        Raises:
            OutputError: If it cannot be written; the earlier one stays.
        """
        with writing(f"{self.output / name}"):
            write_folder(self.output / name, write)

    def leave_policy(self, step: int, write: Callable[[Path], None]) -> None:
        """Leave the finished policy, the last of the results, and note in `run.json` of which step it is.

        Raises:
            OutputError: See `leave`.
        """
        self.leave(POLICY_FOLDER, write)
        with writing(f"{self.output / RUN_FILE}"):
            write_json(
                self.output / RUN_FILE, {**_read_run_file(self.output), "policy_step": max(step, self.start_step)}
            )


@contextmanager
def work_in(output: Path, *, writes: bool = True) -> Iterator[None]:
    """Make a run's folder, and keep other processes from working in it.

    Args:
        output: The folder.
        writes: False in a process beside the one that writes.

    Raises:
        RunFolderError: If another process works in it.
        OutputError: If it cannot be made.
    """
    if not writes:
        yield
        return
    with ExitStack() as stack:
        with writing(f"{output}"):
            make_folder(output)
            stack.enter_context(hold_lock(output / LOCK_FILE, output))
        yield


def open_run(output: Path, digest: str, *, resume: bool) -> RunFolder:
    """Open a run's folder, new or to go on.

    Args:
        output: The folder; made if absent.
        digest: From `config_digest`.
        resume: Go on from the newest checkpoint that can be read; a run that was stopped before its first one starts
            over.

    Raises:
        RunFolderError: If the folder holds a run and `resume` is off; or a finished one without a checkpoint.
        CheckpointError: If no checkpoint can be read, or it was written under other settings.
    """
    held = [name for name in (RUN_FILE, CHECKPOINTS_FOLDER, POLICY_FOLDER) if (output / name).exists()]
    if held and not resume:
        raise RunFolderError(
            f"{output} holds a run already ({', '.join(held)}): resume it with --resume, "
            "or choose another output folder, or delete this one"
        )
    checkpoint = load_newest(output / CHECKPOINTS_FOLDER)
    if checkpoint is None and POLICY_FOLDER in held:
        raise RunFolderError(
            f"{output} holds a finished policy and no checkpoint to go on from: choose another output folder, "
            "or delete this one"
        )
    if checkpoint is None and held:
        logger.warning("%s holds no checkpoint: the run starts over", output)
    if checkpoint is not None and checkpoint.state["config_digest"] != digest:
        raise CheckpointError(
            f"{checkpoint_path(output / CHECKPOINTS_FOLDER, checkpoint.step)} was written under other settings than "
            f"the given ones (compare {output / RUN_FILE}); only paths, service, threads, checkpoint and the number "
            "of steps may change in a resumed run"
        )
    output.mkdir(parents=True, exist_ok=True)
    return RunFolder(output, digest, checkpoint, _policy_step(output, checkpoint))


def _policy_step(output: Path, checkpoint: Checkpoint | None) -> int:
    """Of which step `policy/` is; a run of an earlier version did not note it, and left it at its end."""
    if checkpoint is None or not (output / POLICY_FOLDER).exists():
        return 0
    content = _read_run_file(output)
    return int(content.get("policy_step", checkpoint.step if content else 0))


def _read_run_file(output: Path) -> dict[str, Any]:
    """`run.json`; empty where it is gone or damaged, since all of it is known to a run that goes on."""
    try:
        content = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
