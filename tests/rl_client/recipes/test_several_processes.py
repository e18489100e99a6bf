"""A run of two processes on loopback: the command line, gloo, and rewards over HTTP."""

import os
import signal
import threading
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file

from reward_proto import ErrorCode
from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints

TIMEOUT_S = 240.0


def files_of(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("tensorboard/"))


@pytest.mark.parametrize("scoring", ["own", pytest.param("gathered", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(nursery, make_joint, read_metrics, scoring):
    single, _ = make_joint("single")
    train_ppo(single, resume=False)
    config, file = make_joint("two", processes={"scoring": scoring})
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    lines, expected = read_metrics(config.output), read_metrics(single.output)
    assert len({line["kl_coefficient"] for line in lines}) > 1
    for line, wanted in zip(lines, expected, strict=True):
        assert line == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    for model in ("policy", "value"):
        weights, wanted = (load_file(c.output / model / "model.safetensors") for c in (config, single))
        start = load_file(config.policy / "model.safetensors")
        assert any(not torch.equal(tensor, start[name]) for name, tensor in weights.items())
        torch.testing.assert_close(weights, wanted, rtol=0.0, atol=2e-5)
    assert files_of(config.output) == files_of(single.output)


@pytest.mark.signals
def test_a_signal_to_one_stops_both_and_they_resume_bit_for_bit(nursery, make_joint, read_metrics, on_request):
    unbroken, file = make_joint("unbroken")
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    config, file = make_joint("stopped")
    ids: list[int] = []
    known = threading.Event()
    seen = 0

    def stop_second(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:  # in the second step
            assert known.wait(TIMEOUT_S)
            os.kill(ids[1], signal.SIGTERM)

    on_request.append(stop_second)
    ids += nursery.start("train", "--config", file)
    known.set()
    assert nursery.statuses() == [75, 75], nursery.log.read_text()
    assert "stopped by SIGTERM after step" in nursery.log.read_text()
    done = len(read_metrics(config.output))
    assert done in (2, 3)
    assert list_checkpoints(config.output / "checkpoints")[-1].name == f"step-{done:08d}"
    nursery.start("train", "--config", file, "--resume")
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    assert read_metrics(config.output) == read_metrics(unbroken.output)
    weights, wanted = (load_file(c.output / "policy" / "model.safetensors") for c in (config, unbroken))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())


def test_what_fails_in_one_ends_both_after_a_checkpoint(nursery, make_joint, service, on_request):
    config, file = make_joint("failed")
    on_request.append(lambda number: service.fail_next(httpx.Response(501)) if number == 5 else None)
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [1, 1]
    told = nursery.log.read_text()
    assert "OtherProcessError: process" in told
    assert "501" in told
    assert [path.name for path in list_checkpoints(config.output / "checkpoints")] == ["step-00000002"]
    nursery.start("train", "--config", file, "--resume")
    assert nursery.statuses() == [0, 0], nursery.log.read_text()


def test_one_that_is_killed_does_not_hang_the_other(nursery, make_joint, on_request):
    config, file = make_joint("killed")
    ids: list[int] = []
    known = threading.Event()

    def kill_second(number: int) -> None:
        if number == 3:
            assert known.wait(TIMEOUT_S)
            os.kill(ids[1], signal.SIGKILL)

    on_request.append(kill_second)
    ids += nursery.start("train", "--config", file)
    known.set()
    assert nursery.statuses() == [1, -signal.SIGKILL]
    assert "LostProcessError: another process is gone" in nursery.log.read_text()
    assert not list_checkpoints(config.output / "checkpoints")


@pytest.mark.slow
def test_scores_that_fail_in_one_end_both_by_the_share_of_the_whole_step(nursery, make_joint, service, on_request):
    """Four of ten: every response of the one process, or most of the other's."""
    config, file = make_joint("failed", service__max_failed_share=0.35)
    on_request.append(lambda number: service.fail_scores("short", ErrorCode.TOO_LONG, times=4) if number == 4 else None)
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [1, 1]
    told = nursery.log.read_text()
    assert told.count("TooManyFailedScoresError: 4 of 10") == 2, told
    assert [path.name for path in list_checkpoints(config.output / "checkpoints")] == ["step-00000001"]
