"""Two processes that divide weights, gradients and optimizer states (FSDP2), told as `accelerate launch` tells them."""

import os
import signal
import threading

import pytest
import torch

from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints
from tests.rl_client.recipes.whole_runs import assert_learned_alike, flat

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
TIMEOUT_S = 240.0
TOLERANCE = 1e-4
"""Of metrics, relative, and of weights as a share of their way from the start."""


def files_of(folder):
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("tensorboard/"))


@pytest.fixture
def check_equal(nursery, make_joint, read_metrics):
    """Train alone, and in two processes that divide all."""

    def check(environment=FSDP, **changes):
        single, _ = make_joint("single", **changes)
        train_ppo(single, resume=False)
        config, file = make_joint("divided", **changes)
        nursery.start("train", "--config", file, **environment)
        assert nursery.statuses() == [0, 0], nursery.log.read_text()
        assert_learned_alike(config, single, read_metrics, TOLERANCE)
        assert files_of(config.output) == files_of(single.output)

    return check


def test_divided_processes_learn_what_one_does(check_equal):
    check_equal()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"rank": 4, "alpha": 8}, "pipeline": {"staleness": 1, "send_share": 1.0}},
        {"value_trunk": "shared", "gradient_checkpointing": True, "lora": {"rank": 4, "alpha": 8}},
    ],
    ids=["a stale decoder with an adapter", "a shared trunk with an adapter, recomputed"],
)
def test_divided_decoders_learn_what_one_does(check_equal, llama_dir, changes):
    layers_stay = {**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}
    check_equal(layers_stay, policy=llama_dir, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["whole", "divided"])
def test_a_run_that_was_interrupted_and_killed_resumes_bit_for_bit(
    nursery, make_joint, read_metrics, on_request, environment
):
    """SIGINT to the first process in the second step; SIGKILL to the second in the fourth."""
    settings = {"ppo__steps": 5, "checkpoint": {"every_steps": 1, "keep": 9}}
    unbroken, file = make_joint("unbroken", **settings)
    nursery.start("train", "--config", file, **environment)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    config, file = make_joint("broken", **settings)
    blows = {"asked": 0, "at": 3, "rank": 0, "how": signal.SIGINT}
    ids: list[int] = []
    known = threading.Event()

    def strike(_: int) -> None:
        blows["asked"] += 1
        if blows["asked"] == blows["at"]:  # two requests a step
            assert known.wait(TIMEOUT_S)
            os.kill(ids[blows["rank"]], blows["how"])

    def run(*more: str) -> list[int]:
        known.clear()
        ids[:] = nursery.start("train", "--config", file, *more, **environment)
        known.set()
        return nursery.statuses()

    on_request.append(strike)
    assert run() == [75, 75], nursery.log.read_text()
    done = len(read_metrics(config.output))
    assert done in (2, 3)
    blows |= {"asked": 2 * done, "at": 7, "rank": 1, "how": signal.SIGKILL}
    assert run("--resume") == [1, -signal.SIGKILL], nursery.log.read_text()
    assert "LostProcessError: another process is gone" in nursery.log.read_text()
    assert list_checkpoints(config.output / "checkpoints")[-1].name == "step-00000003"
    assert run("--resume") == [0, 0], nursery.log.read_text()
    assert read_metrics(config.output) == read_metrics(unbroken.output)
    for model in ("policy", "value"):
        weights, wanted = (flat(c.output / model / "model.safetensors") for c in (config, unbroken))
        assert torch.equal(weights, wanted)


@pytest.mark.slow
def test_one_process_goes_on_where_divided_ones_stopped(nursery, make_joint, read_metrics):
    rates = {"ppo__schedule": "constant", "ppo__warmup_ratio": 0.0}
    single, _ = make_joint("single", **rates)
    train_ppo(single, resume=False)
    config, file = make_joint("divided", ppo__steps=2, **rates)
    nursery.start("train", "--config", file, **FSDP)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    train_ppo(config.model_copy(update={"ppo": single.ppo}), resume=True)
    for line, wanted in zip(read_metrics(config.output), read_metrics(single.output), strict=True):
        assert line == pytest.approx(wanted, rel=10 * TOLERANCE, abs=TOLERANCE)
