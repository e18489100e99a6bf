"""What processes that train together say to each other; two real ones on loopback, over gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reward_service.errors import ConfigError
from reward_service.training.processes import Processes

TIMEOUT_S = 120.0

SCRIPT = """
import torch
from reward_service.training.processes import Processes

with Processes("cpu") as here:
    rank = here.rank
    assert here.count == 2 and here.is_main == (rank == 0)
    assert here.share([5, 6, 7]) == [[5, 7], [6]][rank]
    assert here.share([5]) == [[5], []][rank]
    assert here.any(rank == 1) and not here.any(False)
    assert here.sum(rank + 1.5) == 4.0
    assert [one.tolist() for one in here.gather(torch.tensor([rank, 7]))] == [[0, 7], [1, 7]]
    assert here.from_main({"a": 1} if rank == 0 else None) == {"a": 1}
    both, one, none, frozen = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(4))
    frozen.requires_grad = False
    both.grad = torch.full((2, 2), rank + 1.0)
    if rank == 1:
        one.grad = torch.eye(2)
    here.sum_gradients([both, one, none, frozen])
    assert both.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert one.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert none.grad is None
    here.wait()
print("done", rank)
"""

PARTING = """
import contextlib
from pathlib import Path
import torch
from reward_service.training.interrupt import InterruptedTrainingError
from reward_service.training.processes import Processes

with contextlib.suppress(InterruptedTrainingError), Processes("cpu") as here:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.sum().backward()
    here.sum_gradients([weight])
    torch.optim.AdamW([weight]).step()
    {end}
names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in names if "gloo" in name], names
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(command: list[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Start a command as two processes, as `accelerate launch` and torchrun do."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = []
    for rank in ("0", "1"):
        environment = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}
        log = (folder / f"log-{rank}").open("w")
        started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, text=True))
    return started


def end(started: list[subprocess.Popen[str]]) -> list[int]:
    """Their exit statuses."""
    try:
        return [process.wait(TIMEOUT_S) for process in started]
    finally:
        for process in started:
            process.kill()


def test_two_processes(tmp_path: Path) -> None:
    assert end(launch([sys.executable, "-c", SCRIPT], tmp_path)) == [0, 0], (tmp_path / "log-0").read_text()
    assert "done 1" in (tmp_path / "log-1").read_text()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the threads")
@pytest.mark.parametrize("ending", ["pass", "raise InterruptedTrainingError"])
def test_no_thread_of_the_group_outlives_it(tmp_path: Path, ending: str) -> None:
    started = launch([sys.executable, "-c", PARTING.format(end=ending)], tmp_path)
    assert end(started) == [0, 0], (tmp_path / "log-0").read_text()


def test_one_process_talks_to_itself() -> None:
    with Processes("cpu") as here:
        assert (here.count, here.rank, here.is_main, here.device.type) == (1, 0, True, "cpu")
        assert here.share([5, 6]) == [5, 6]
        assert here.any(True)
        assert not here.any(False)
        assert here.sum(1.5) == 1.5
        assert here.from_main("x") == "x"
        assert here.gather(torch.ones(1)) == [torch.ones(1)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test finds missing")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="torch finds no such device"):
        Processes("cuda")
    assert Processes("auto").device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--cpu", "--num_processes", "2"], ["--num_processes", "2"]])
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the launcher does what it was told")
def test_a_launcher_that_starts_one_process_in_place_of_two_is_told(tmp_path: Path, options: list[str]) -> None:
    """`accelerate launch` on CPUs, for real; alone it starts what may go on."""
    script = tmp_path / "script.py"
    script.write_text("from reward_service.training.processes import Processes\nprint(Processes('cpu').count)\n")
    # As one machine without a file of accelerate's settings, whatever there is in the user's home.
    environment = {**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    results = [
        subprocess.run(
            [sys.executable, "-m", "accelerate.commands.launch", *given, str(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        for given in (options, ["--cpu", "--num_processes", "1"])
    ]
    assert "started one process in place of several" in results[0].stderr
    assert [result.returncode for result in results] == [1, 0], results[1].stderr
    assert results[1].stdout.split() == ["1"]
