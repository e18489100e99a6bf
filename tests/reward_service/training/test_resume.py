"""Trainings in processes of their own that are killed or stopped, and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reward_service.config import load_settings
from reward_service.registry.store import Published, Store
from reward_service.training.config import TrainConfig
from reward_service.training.evaluate import published_history
from reward_service.training.interrupt import EXIT_INTERRUPTED
from reward_service.training.train import train_models
from tests.reward_service.training.conftest import write_config, write_feedback
from tests.reward_service.training.test_processes import TIMEOUT_S, end, launch

MODEL = "factuality"
TRAINING = {"epochs": 12, "batch_size": 4, "learning_rate": 3e-3, "max_tokens": 96}


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """61 training examples: the last of 16 batches holds a single one, and one of two processes none."""
    folder = tmp_path_factory.mktemp("feedback")
    return write_feedback(folder / "train.json", 61, 0), write_feedback(folder / "dev.json", 12, 1)


def settings(folder: Path, encoder_dir: Path, files: tuple[Path, Path], **changes: Any) -> Path:
    return write_config(
        folder / "train.yaml",
        encoder_dir,
        files,
        folder / "store",
        training=TRAINING,
        work=str(folder / "work"),
        **changes,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, feedback: tuple[Path, Path]) -> Published:
    """What an undisturbed training in one process gives."""
    config = settings(tmp_path_factory.mktemp("straight"), encoder_dir, feedback)
    (model,) = train_models(load_settings(config, TrainConfig), [MODEL])
    return model.published


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "reward_service.cli", "train", "--config", str(config), "--only", MODEL]


def wait_for_step(work: Path, step: int, started: list[subprocess.Popen[str]]) -> None:
    """Until a finished checkpoint holds so many steps."""
    until_s = time.monotonic() + TIMEOUT_S
    while max((int(path.name[-8:]) for path in work.glob("*/step-*")), default=0) < step:
        assert all(process.poll() is None for process in started), "it ended before its checkpoint was seen"
        assert time.monotonic() < until_s
        time.sleep(0.01)


def last_state(work: Path) -> dict[str, Any]:
    (path,) = work.glob("*/step-*/state.json")
    state: dict[str, Any] = json.loads(path.read_text())["state"]
    return state


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_bit(
    tmp_path: Path, encoder_dir: Path, feedback: tuple[Path, Path], straight: Published
) -> None:
    config = settings(tmp_path, encoder_dir, feedback, checkpoint_steps=1)
    with (tmp_path / "log").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command(config), stdout=log, stderr=subprocess.STDOUT, env=environment, text=True)
        try:
            wait_for_step(tmp_path / "work", 20, [process])
        finally:
            process.kill()
        assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert Store(tmp_path / "store").list() == []
    (model,) = train_models(load_settings(config, TrainConfig), [MODEL])
    # The version is a digest over the weights, the figures and the learning curve.
    assert model.published.version == straight.version
    assert list((tmp_path / "work").glob("*/*")) == []


def assert_same_curve(one: Published, other: Published) -> None:
    """Sums in another order differ in the last digits, which AdamW's first steps enlarge."""
    for epoch, same in zip(published_history(one), published_history(other), strict=True):
        assert same.train_loss == pytest.approx(epoch.train_loss, rel=1e-3)
        assert same.held_out_loss == pytest.approx(epoch.held_out_loss, rel=1e-3)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_stop_together_and_leave_the_rest_to_one(
    tmp_path: Path, encoder_dir: Path, feedback: tuple[Path, Path], straight: Published
) -> None:
    config = settings(tmp_path, encoder_dir, feedback, checkpoint_steps=5)
    started = launch(command(config), tmp_path)
    try:
        wait_for_step(tmp_path / "work", 40, started)
        started[1].send_signal(signal.SIGTERM)
    finally:
        codes = end(started)
    log = (tmp_path / "log-0").read_text()
    assert codes == [EXIT_INTERRUPTED, EXIT_INTERRUPTED], log
    state = last_state(tmp_path / "work")
    assert state["epoch"] >= 2
    assert f"stopped after step {state['step']}; the same command goes on" in log
    assert Store(tmp_path / "store").list() == []
    (model,) = train_models(load_settings(config, TrainConfig), [MODEL])
    assert [epoch.train_loss for epoch in published_history(model.published)[: state["epoch"]]] == [
        epoch["train_loss"] for epoch in state["history"]
    ]
    assert_same_curve(straight, model.published)


@pytest.mark.slow
def test_of_two_processes_the_main_one_publishes(
    tmp_path: Path, encoder_dir: Path, feedback: tuple[Path, Path], straight: Published
) -> None:
    started = launch(command(settings(tmp_path, encoder_dir, feedback)), tmp_path)
    assert end(started) == [0, 0], (tmp_path / "log-0").read_text()
    (published,) = Store(tmp_path / "store").list()
    assert published.aliases == ("latest",)
    assert published.version in (tmp_path / "log-0").read_text()
    assert MODEL not in (tmp_path / "log-1").read_text()
    assert_same_curve(straight, published)
