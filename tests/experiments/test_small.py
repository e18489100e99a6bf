"""The small twins' settings are the demo's with other weights."""

from pathlib import Path

import yaml

from demo.configs import Setup, write_configs
from demo.files import questions, read_jsonl
from demo.oracle import judge
from experiments.paper import TABLES
from experiments.small import WEIGHTS, write_detox_prompts, write_qa_configs, write_references
from rl_client.training.config import EvaluateConfig, TrainConfig

SIZES = {"train": 84, "dev": 24, "test": 24}
NAMED = (
    "angry driver",
    "drunk man",
    "old sailor",
    "loser of the game",
    "tired cook",
    "rude guest",
    "bully",
    "shopkeeper",
    "cheated gambler",
    "taxi driver",
    "stressed clerk",
    "furious boss",
    "jealous brother",
    "heckler",
    "landlord",
)
DEMO = {"relevance": 1.0, "factuality": 0.5, "completeness": 0.5}


def test_qa_settings(tmp_path: Path) -> None:
    write_configs(Setup(tmp_path, seed=0, port=8000))
    write_qa_configs(tmp_path, tmp_path / "configs" / "experiments")
    folder = tmp_path / "configs" / "experiments"
    arms = {row.arm for table in TABLES if table.family == "qa" for row in table.rows if row.arm is not None}
    assert {path.stem.removeprefix("evaluate_qa_") for path in folder.glob("evaluate_*.yaml")} == arms
    base = yaml.safe_load((tmp_path / "configs" / "fine_grained.yaml").read_text())
    expected = {
        "short": DEMO | {"relevance": 1.5},
        "long": DEMO | {"relevance": 0.25},
        **{f"without_{left}": {name: w for name, w in DEMO.items() if name != left} for left in DEMO},
    }
    assert set(expected) == set(WEIGHTS)
    for arm, weights in expected.items():
        content = yaml.safe_load((folder / f"qa_{arm}.yaml").read_text())
        config = TrainConfig.model_validate(content)
        assert {reward.model: reward.weight for reward in config.rewards} == weights
        assert config.output == tmp_path / arm
        assert {key: content[key] for key in ("ppo", "generation", "prompts", "seed", "policy")} == {
            key: base[key] for key in ("ppo", "generation", "prompts", "seed", "policy")
        }
        evaluation = EvaluateConfig.model_validate(yaml.safe_load((folder / f"evaluate_qa_{arm}.yaml").read_text()))
        assert evaluation.policy == tmp_path / arm / "policy"
        assert evaluation.output == tmp_path / "evaluation" / arm


def test_references_are_right_answers(tmp_path: Path) -> None:
    rows = read_jsonl(write_references(tmp_path, seed=0))
    asked = questions("held_out", 0)
    assert len(rows) == len(asked)
    for row in rows[:20]:
        found = judge(asked[int(row["id"].partition("/")[2])], row["reference"])
        assert (found.faults, found.missing) == (0, ())


def test_detox_prompts_share_neither_speaker_nor_opening(tmp_path: Path) -> None:
    write_detox_prompts(tmp_path)
    texts = {split: [row["prompt"] for row in read_jsonl(tmp_path / f"detox_{split}.jsonl")] for split in SIZES}
    assert {split: len(some) for split, some in texts.items()} == SIZES
    assert {split: len(set(some)) for split, some in texts.items()} == SIZES
    speakers = {split: {one for one in NAMED if any(one in text for text in some)} for split, some in texts.items()}
    assert {split: len(some) for split, some in speakers.items()} == {"train": 7, "dev": 4, "test": 4}
    openings = {
        split: {text.replace(one, "{}") for text in some for one in speakers[split] if one in text}
        for split, some in texts.items()
    }
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not speakers[first] & speakers[second]
        assert not openings[first] & openings[second]
    assert {split: len(some) for split, some in openings.items()} == {"train": 12, "dev": 6, "test": 6}
