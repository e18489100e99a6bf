"""What processes that train together say to each other; two real ones on loopback, over gloo."""

import pytest
import torch

from rl_client.errors import ConfigError, LostProcessError, OtherProcessError
from rl_client.training.config import Device
from rl_client.training.processes import Processes
from tests.rl_client.threads_as_processes import run_threads
from tests.rl_client.training.two_processes import run_two

SCRIPT = """
import os
import torch
from rl_client.errors import LostProcessError, OtherProcessError
from rl_client.training import processes
from rl_client.training.config import Device

processes.BUCKET_ELEMENTS = 5
with processes.Processes.meet(Device.CPU) as here:
    rank = here.rank
    assert (here.count, here.is_main, here.device.type) == (2, rank == 0, "cpu")
    assert here.exchange(lambda: {"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert here.from_main(f"of {rank}") == "of 0"
    assert here.first("x" if rank == 1 else None) == "x"
    assert here.add({"a": torch.tensor(rank + 1.5)}, ("a", "b")) == [4.0, 0.0]
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
    print("done", rank, flush=True)
    if rank == 1:
        os._exit(3)  # Gone without a word; what gloo's own clean-up does then is not what is asked here.
    try:
        here.wait()
    except LostProcessError:
        raise SystemExit(4)
"""


@pytest.mark.slow
def test_two_processes_and_one_that_goes_away(tmp_path):
    statuses, printed = run_two(SCRIPT, tmp_path)
    assert statuses == [4, 3], printed[0]
    assert "done 1" in printed[1]


def test_one_process_talks_to_itself():
    with Processes.meet(Device.CPU) as here:
        assert (here.count, here.rank, here.is_main, here.device) == (1, 0, True, torch.device("cpu"))
        assert here.exchange(lambda: 5) == [5]
        assert here.together(lambda: 5) == 5
        assert here.from_main("x") == "x"
        assert here.first(None) is None
        assert here.add({"a": torch.tensor(1.5)}, ("b", "a")) == [0.0, 1.5]
        assert here.share_rows(3).tolist() == [0, 1, 2]
        here.wait()


def test_rows_of_a_minibatch():
    rows = [Processes(torch.device("cpu"), rank=rank, count=3).share_rows(4).tolist() for rank in range(3)]
    assert rows == [[0], [1], [2, 3]]
    rows = [Processes(torch.device("cpu"), rank=rank, count=3).share_rows(1).tolist() for rank in range(3)]
    assert rows == [[], [], [0]]


def test_figures_are_summed_or_the_largest_is_taken():
    def add(processes):
        figures = {"loss": torch.tensor(float(processes.rank)), "ratio_max": torch.tensor(2.0 - processes.rank)}
        return processes.add(figures, ("loss", "ratio_max"), largest=("ratio_max",))

    assert run_threads(3, add) == [[3.0, 2.0]] * 3


def test_work_that_fails_somewhere_fails_everywhere():
    def work(processes):
        return processes.together(lambda: 1 // processes.rank)

    failed, other = run_threads(2, work)
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(other, OtherProcessError)
    assert "process 0 failed: ZeroDivisionError" in str(other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test finds missing")
def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="torch finds none"):
        Processes.meet(Device.CUDA)
    assert Processes.meet(Device.AUTO).device.type == "cpu"


def test_a_launcher_that_starts_one_process_in_place_of_two_is_told(monkeypatch):
    """What `accelerate launch --cpu --num_processes 2` sets; the launcher itself is run in the service's tests."""
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match="torchrun"):
        Processes.meet(Device.CPU)


@pytest.mark.parametrize("name", ["DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_a_launcher_that_was_told_what_is_not_done_is_refused(monkeypatch, name):
    """What `accelerate launch --use_deepspeed` sets: the run would otherwise hold whole models, unnoticed."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=f"told to use {name}.*FSDP"):
        Processes.meet(Device.CPU)


def test_a_connection_that_ends_is_a_lost_process_where_weights_are_divided():
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:6580")
    for divided, error, told in (
        (True, closed, LostProcessError),
        (True, RuntimeError("shapes do not fit"), RuntimeError),
        (False, closed, RuntimeError),
    ):
        processes = Processes(torch.device("cpu"), count=2, sharding=object() if divided else None)
        with pytest.raises(told) as raised, processes.computing_together():
            raise error
        assert type(raised.value) is told
