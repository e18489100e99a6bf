"""Running the public command lines as child processes, with their output in log files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

POLL_S = 0.5
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LOG_TAIL_LINES = 20


class CommandError(RuntimeError):
    """A child process failed; the message ends with the last lines of its log."""


def _program(name: str) -> str:
    """The console script beside the interpreter, so that no activated environment is needed."""
    return str(Path(sys.executable).with_name(name))


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    file: IO[bytes]
    with log.open("ab") as file:
        return subprocess.Popen(
            [_program(command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
        )


def last_line(log: Path) -> str:
    """The newest line that a child printed; empty while there is none."""
    try:
        text = log.read_bytes()[-2000:].decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _explain(command: Sequence[str], log: Path, status: int) -> CommandError:
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])
    return CommandError(f"`{' '.join(command)}` exited with {status}; the end of {log}:\n{tail}")


def run_together(commands: Mapping[Path, Sequence[str]], watch: Callable[[str], None]) -> None:
    """Run commands side by side until all are done.

    Args:
        commands: Log file -> command.
        watch: Is told the newest output lines, twice a second.

    Raises:
        CommandError: One failed; the others are stopped first.
    """
    children = {log: _start(command, log) for log, command in commands.items()}
    try:
        while any(child.poll() is None for child in children.values()):
            for log, child in children.items():
                if child.poll():
                    raise _explain(commands[log], log, child.returncode)
            watch(" | ".join(last_line(log)[:60] for log in children))
            time.sleep(POLL_S)
        for log, child in children.items():
            if child.returncode:
                raise _explain(commands[log], log, child.returncode)
    finally:
        for child in children.values():
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def serving(config: Path, url: str, log: Path) -> Iterator[None]:
    """Run `reward-service serve` until the block ends.

    Raises:
        CommandError: It did not become ready, or ended before the block did.
    """
    command = ["reward-service", "serve", "--config", str(config)]
    child = _start(command, log)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _is_ready(url):
            if child.poll() is not None or time.monotonic() > deadline:
                raise _explain(command, log, child.returncode or 0)
            time.sleep(POLL_S)
        if child.poll() is not None:
            # Somebody else answers at this address: theirs are not the demo's models.
            raise _explain(command, log, child.returncode)
        yield
    finally:
        _stop(child)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
