"""What a training run is doing at each moment, told to other processes, and a SIGKILL at one that they choose.

Functions of the run are wrapped where they are called; nothing else of it is changed. The phase stands in a mapped
file, which outlives the process: its content after a kill is the moment of the kill.
"""

import functools
import mmap
import os
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any

PHASES = (
    "between",
    "opening the run",
    "building models",
    "sampling",
    "update",
    "logging",
    "writing a checkpoint",
    "pruning",
    "naming the best",
    "leaving models",
)
SCORING = "scoring"
"""Goes on beside the other phases, in a thread of its own."""
_LAYOUT = struct.Struct("=BBBBf")
"""The main thread's phase; how many requests for scores are under way; the phase to die in (its number + 1, 0: never),
at the so-manieth time it is entered, so many seconds later."""
_AIM = 2
_NEVER, _SCORING = 0, 255


def _code(phase: str) -> int:
    return _SCORING if phase == SCORING else PHASES.index(phase) + 1


def create(path: Path) -> None:
    """The file before a process has it."""
    path.write_bytes(bytes(_LAYOUT.size))


def read(path: Path) -> list[str]:
    """The phases that a process is in, or was in when it ended."""
    phase, scoring, *_ = _LAYOUT.unpack(path.read_bytes())
    return [PHASES[phase], *([SCORING] if scoring else [])]


def aim(path: Path, phase: str, entry: int, delay_s: float) -> None:
    """Have the process killed so long after it enters a phase for the so-manieth time from now."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _LAYOUT.size) as content:
        content[_AIM + 1 :] = struct.pack("=Bf", entry, delay_s)
        content[_AIM] = _code(phase)  # last, since the process looks at it meanwhile


class Watch:
    """Writes phases into the file, and looks there for the moment to die."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._lock = threading.Lock()
        self._doom: threading.Thread | None = None

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Have a function's calls be a phase."""
        inner = getattr(owner, name)
        code = _code(phase)

        @functools.wraps(inner)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            before = self._enter(phase)
            if self._map[_AIM] == code:
                self._count_down()
            try:
                return inner(*arguments, **options)
            finally:
                self._leave(phase, before)

        setattr(owner, name, wrapped)

    def _enter(self, phase: str) -> int:
        before = self._map[0]
        if phase == SCORING:  # in several threads
            with self._lock:
                self._map[1] += 1
        else:
            self._map[0] = PHASES.index(phase)
        return before

    def _leave(self, phase: str, before: int) -> None:
        if phase == SCORING:
            with self._lock:
                self._map[1] -= 1
        else:
            self._map[0] = before

    def _count_down(self) -> None:
        with self._lock:
            _, _, code, entry, delay_s = _LAYOUT.unpack(self._map[:])
            if code == _NEVER:
                return
            self._map[_AIM + 1] = max(entry - 1, 0)
            if entry <= 1:
                self._map[_AIM] = _NEVER
                self._doom = threading.Thread(target=_kill_after, args=(delay_s,), daemon=True)
                self._doom.start()

    def end(self) -> None:
        """To be called before the process ends: a death that is under way is waited for, which a fast run outruns."""
        if self._doom:
            self._doom.join()


def _kill_after(delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)


def watch(path: Path) -> Watch:
    """Begin to tell this process's phases in a file made by `create`."""
    from rl_client.recipes import train_ppo
    from rl_client.rollout.score import RewardScorer
    from rl_client.training import checkpoint, rollout_source
    from rl_client.training.best_checkpoint import BestCheckpoint
    from rl_client.training.metric_log import MetricLog
    from rl_client.training.run_folder import RunFolder

    told = Watch(path)
    owners: dict[str, list[tuple[Any, str]]] = {
        "opening the run": [(train_ppo, "open_run")],
        "building models": [(train_ppo, "build_state"), (train_ppo, "restore_state")],
        "sampling": [(rollout_source, "generate")],
        "update": [(train_ppo, "ppo_update")],
        "logging": [(MetricLog, "write")],
        "writing a checkpoint": [(checkpoint, "write_folder")],
        "pruning": [(checkpoint, "remove_folder")],
        "naming the best": [(BestCheckpoint, "write")],
        "leaving models": [(RunFolder, "leave"), (RunFolder, "leave_policy")],
        SCORING: [(RewardScorer, "request")],
    }
    for phase, functions in owners.items():
        for owner, name in functions:
            told.wrap(owner, name, phase)
    return told
