import json
import signal
from pathlib import Path

import pytest

from reward_proto import Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.training.config import SftConfig, TrainConfig


@pytest.fixture
def service():
    """`good` classifies sub-sentences by whether they hold the word; `short` prefers short responses."""
    return FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: 1.0 if "good" in text.split() else 0.0,
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
            ),
            FakeModel("short", score=lambda text: -0.1 * len(text.split())),
        ]
    )


@pytest.fixture
def train_config(tmp_path, policy_dir, prompts_file):
    """Settings of a run of six steps, changed by keyword; dots in names are `__`."""

    def make(output: str, **changes) -> TrainConfig:
        settings = {
            "output": tmp_path / output,
            "threads": 1,
            "device": "cpu",
            "policy": policy_dir,
            "prompts": prompts_file,
            "service": {"url": "http://reward", "retry_for_s": 0.0},
            "rewards": [{"model": "good"}, {"model": "short", "weight": 0.5}],
            "generation": {"max_new_tokens": 6, "samples_per_prompt": 2},
            "ppo": {
                "steps": 6,
                "prompts_per_step": 4,
                "epochs": 2,
                "minibatch_size": 4,
                "microbatch_size": 3,
                "learning_rate": 3e-3,
                "value_learning_rate": 3e-3,
                "schedule": "linear",
                "warmup_ratio": 0.3,
                "value_warmup_steps": 1,
            },
            "checkpoint": {"every_steps": 2, "keep": 2},
        }
        return TrainConfig.model_validate(_change(settings, changes))

    return make


@pytest.fixture
def sft_config(tmp_path, init_dir, demonstrations_file):
    """Settings of a run of six steps; dropout is on."""

    def make(output: str, **changes) -> SftConfig:
        settings = {
            "output": tmp_path / output,
            "threads": 1,
            "device": "cpu",
            "model": init_dir,
            "from_scratch": True,
            "data": {"train": demonstrations_file, "dev": demonstrations_file},
            "training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "eval_every_steps": 3},
            "checkpoint": {"every_steps": 2, "keep": 2},
        }
        return SftConfig.model_validate(_change(settings, changes))

    return make


@pytest.fixture
def read_metrics():
    """Lines of metrics.jsonl without the timings."""

    def read(output: Path) -> list[dict]:
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]

    return read


@pytest.fixture
def send_signal():
    """A function that sends this thread a signal that has a handler: the default action would end the test process."""
    defaults = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def send(number: signal.Signals) -> None:
        assert signal.getsignal(number) not in defaults
        signal.raise_signal(number)

    return send


def _change(settings: dict, changes: dict) -> dict:
    for name, value in changes.items():
        *sections, key = name.split("__")
        section = settings
        for part in sections:
            section = section[part]
        section[key] = value
    return settings
