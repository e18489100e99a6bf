"""What is left to do of the runs: finished parts are skipped, stale ones are done again."""

import json
import os
from pathlib import Path

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from experiments import run
from experiments.run import Family


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """Detoxification with one trained arm, whose files are made by hand."""
    configs, root = tmp_path / "configs", tmp_path / "detox"
    configs.mkdir()
    train = {"output": str(root / "holistic"), "ppo": {"steps": 4}}
    (configs / "detox_holistic.yaml").write_text(yaml.safe_dump(train))
    for arm, policy in {"initial": tmp_path / "base", "holistic": root / "holistic" / "policy"}.items():
        (configs / f"evaluate_detox_{arm}.yaml").write_text(yaml.safe_dump({"policy": str(policy)}))
    (configs / "detox_service.yaml").write_text(yaml.safe_dump({"host": "127.0.0.1", "port": 8013}))
    return Family("detox", root, configs, ["--lm", "gpt2"])


def touch(path: Path, seconds: int, text: str = "{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (seconds, seconds))


def train_to(family: Family, step: int, seconds: int) -> None:
    run = family.root / "holistic"
    touch(run / "metrics.jsonl", seconds, "".join(json.dumps({"step": n}) + "\n" for n in range(1, step + 1)))
    touch(run / "policy" / "config.json", seconds)


def left(family: Family, arm: str) -> list[str]:
    return [job.name for job in family.jobs(arm) if not job.is_done()]


def test_commands(family: Family) -> None:
    assert family.arms == ["initial", "holistic", "fine_grained"]
    assert family.url == "http://127.0.0.1:8013"
    train, sample, figures = family.jobs("holistic")
    assert train.command == ["rl-client", "train", "--config", str(family.configs / "detox_holistic.yaml")]
    assert sample.command[-1] == str(family.configs / "evaluate_detox_holistic.yaml")
    responses = str(family.root / "evaluation" / "holistic" / "responses.jsonl")
    folder = str(family.root / "figures" / "holistic")
    assert figures.command == ["rl-client", "evaluate", "--data", responses, "--out", folder, "--lm", "gpt2"]
    assert [job.name for job in family.jobs("initial")] == ["initial: sample", "initial: figures"]


def test_finished_parts_are_skipped(family: Family) -> None:
    everything = ["holistic: train", "holistic: sample", "holistic: figures"]
    assert left(family, "holistic") == everything
    train_to(family, step=3, seconds=100)
    assert left(family, "holistic") == everything
    assert next(iter(family.jobs("holistic"))).command[-1] == "--resume"
    train_to(family, step=4, seconds=100)
    assert left(family, "holistic") == everything[1:]
    touch(family.root / "evaluation" / "holistic" / "responses.jsonl", 200)
    assert left(family, "holistic") == everything[2:]
    touch(family.root / "figures" / "holistic" / "figures.json", 300)
    assert left(family, "holistic") == []


def test_longer_training_makes_the_rest_stale(family: Family) -> None:
    touch(family.root / "evaluation" / "holistic" / "responses.jsonl", 200)
    touch(family.root / "figures" / "holistic" / "figures.json", 300)
    train_to(family, step=4, seconds=250)
    assert left(family, "holistic") == ["holistic: sample"]
    touch(family.root / "evaluation" / "holistic" / "responses.jsonl", 400)
    assert left(family, "holistic") == ["holistic: figures"]


def test_another_number_of_steps(family: Family) -> None:
    train_to(family, step=2, seconds=100)
    few = Family("detox", family.root, family.configs, [], steps=2)
    train, *_ = few.jobs("holistic")
    assert train.is_done()
    assert yaml.safe_load(Path(train.command[3]).read_text())["ppo"]["steps"] == 2
    assert not next(iter(family.jobs("holistic"))).is_done()


def test_an_unknown_family_or_arm_is_refused() -> None:
    app = Typer()
    app.command()(run.main)
    for arguments in (["small", "--family", "chess"], ["full", "--arm", "sfd"]):
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == 2
        assert arguments[-1] in ended.output
