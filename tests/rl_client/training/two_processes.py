"""Starts a script as two processes that meet over gloo, as a launcher does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 240.0
ROOT = Path(__file__).parents[3]


def run_two(script: str, folder: Path, **environment: str) -> tuple[list[int], list[str]]:
    """Run Python code in two processes.

    Args:
        script: The same for both; `tests` can be imported.
        folder: For what they print.
        environment: Of both.

    Returns:
        Exit statuses, and what each printed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    logs = [folder / f"log-{rank}" for rank in range(2)]
    started = []
    for rank, path in enumerate(logs):
        with path.open("w") as log:
            own = {**os.environ, **place, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-c", script]
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=own, cwd=ROOT))
    try:
        statuses = [process.wait(TIMEOUT_S) for process in started]
    finally:
        for process in started:
            process.kill()
    return statuses, [path.read_text() for path in logs]
