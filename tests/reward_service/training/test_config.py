import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.config import load_settings
from reward_service.errors import ConfigError
from reward_service.training.config import TrainConfig, TrainingConfig
from reward_service.training.data_files import DataFile

REPOSITORY = Path(__file__).parents[3]
SPAN = {
    "kind": "token_classification",
    "granularity": "sub_sentence",
    "template": "question: {question} answer:",
    "error_types": ["Irrelevant"],
}
PAIRS = {
    "kind": "sequence_regression",
    "granularity": "sequence",
    "template": "{context} {question}",
    "pairs": "coverage",
}


def load(tmp_path: Path, **changes: Any) -> TrainConfig:
    content = {
        "store": "store",
        "encoder": "encoder",
        "data": {"train": ["a.json"], "dev": ["b.json"]},
        "models": {"relevance": SPAN},
        **changes,
    }
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(content))
    return load_settings(path, TrainConfig)


def test_models_inherit_training_and_override_it(tmp_path: Path) -> None:
    models = {"relevance": {**SPAN, "training": {"epochs": 9}}, "completeness": PAIRS}
    config = load(tmp_path, models=models, training={"epochs": 2, "learning_rate": 0.5, "cut_field": "context"})
    assert config.models["relevance"].training.epochs == 9
    assert config.models["relevance"].training.learning_rate == 0.5
    assert config.models["completeness"].training.epochs == 2
    # The cut applies to templates that have the field.
    assert config.models["relevance"].cut_field is None
    assert config.models["completeness"].cut_field == "context"


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ({**SPAN, "error_types": []}, "needs error_types"),
        ({**SPAN, "pairs": "coverage"}, "takes no pairs"),
        ({**SPAN, "ignore_error_types": ["Irrelevant"]}, "overlap"),
        ({**SPAN, "template": "{prompt}"}, "not 'prompt'"),
        ({**SPAN, "template": "{question!r}"}, "bare"),
        ({**SPAN, "class_weights": "even"}, "class_weights"),
        ({**SPAN, "class_weights": {"error": 2.0}}, "give a weight to each of error, ok"),
        ({**SPAN, "class_weights": {"error": 0.0, "ok": 1.0}}, "greater than 0"),
        ({**SPAN, "language": "English"}, "models.m.language"),
        ({**SPAN, "training": {"patience": 2, "keep_best": False}}, "patience waits for a better epoch"),
        ({**PAIRS, "class_weights": "balanced"}, "has no classes"),
        ({**SPAN, "kind": "sequence_classification"}, "kind"),
        ({**PAIRS, "pairs": None}, "needs pairs"),
        ({**PAIRS, "pairs": "votes"}, "preference"),
        ({**PAIRS, "granularity": "sentence"}, "whole sequence"),
        ({**PAIRS, "error_types": ["Irrelevant"]}, "takes no error types"),
        ({**PAIRS, "coverage_similarity": 0}, "greater than 0"),
        ({**SPAN, "training": {"epochs": 0}}, "models.m.training.epochs"),
        ({**SPAN, "colour": 1}, "models.m.colour"),
    ],
)
def test_faults_of_a_model(tmp_path: Path, model: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        load(tmp_path, models={"m": model})


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, seed="x", data={"train": [], "dev": ["b"]}, surprise=1, models={"m": {**SPAN, "kind": "x"}})
    places = [fault.split(":")[0] for fault in raised.value.faults]
    assert places == ["seed", "data.train", "models.m.kind", "surprise"]


def test_jsonl_gives_any_field_but_no_coverage(tmp_path: Path) -> None:
    data = {"format": "jsonl", "train": ["a.jsonl[:2]"], "dev": ["a.jsonl[2:]"]}
    config = load(tmp_path, data=data, models={"m": {**SPAN, "template": "{prompt} {anything}"}})
    assert config.models["m"].fields == {"prompt", "anything"}
    assert config.data.dev == [DataFile(Path("a.jsonl"), 2, None)]
    with pytest.raises(ConfigError, match=r"completeness\.pairs: jsonl feedback gives preferences, not coverage"):
        load(tmp_path, data=data, models={"completeness": PAIRS})


def test_a_slice_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train\[0\]: .*START:STOP"):
        load(tmp_path, data={"train": ["a.json[:20%]"], "dev": ["b.json"]})


def test_reports_and_checkpoints_lie_beside_the_store(tmp_path: Path) -> None:
    config = load(tmp_path, store="runs/x/store")
    assert (config.work_folder, config.reports_folder) == (Path("runs/x/training"), Path("runs/x/reports"))
    config = load(tmp_path, work="w", reports="r")
    assert (config.work_folder, config.reports_folder) == (Path("w"), Path("r"))


@pytest.mark.parametrize("training", [{"epochs": 0}, {"speed": 1}, [1]])
def test_a_fault_of_the_shared_training_is_told_once(tmp_path: Path, training: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, models={"relevance": SPAN, "completeness": PAIRS}, training=training)
    (fault,) = raised.value.faults
    assert fault.startswith("training")


@pytest.mark.parametrize("models", [{}, [], None, {"m": None}])
def test_models_of_a_wrong_shape(tmp_path: Path, models: Any) -> None:
    with pytest.raises(ConfigError, match="models"):
        load(tmp_path, models=models)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "deploy" / "configs").glob("train-*.yaml")), ids=lambda p: p.name)
def test_the_settings_to_start_from_are_valid(path: Path) -> None:
    assert load_settings(path, TrainConfig).models


@pytest.mark.parametrize(
    ("changes", "fault"), [({"layers": 2, "frozen_layers": 3}, "over layers 2"), ({"dropout": 1.0}, "dropout")]
)
def test_parts_of_the_encoder_that_cannot_be(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        TrainingConfig.model_validate(changes)
