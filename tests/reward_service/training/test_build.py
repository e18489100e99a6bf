from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_service.config import load_settings
from reward_service.domain import TextItem
from reward_service.errors import ConfigError
from reward_service.registry.store import Store
from reward_service.training.build import class_counts, class_weights
from reward_service.training.config import ModelConfig, TrainConfig
from reward_service.training.dataset import SpanExample
from reward_service.training.feedback import SpanRow
from reward_service.training.labels import IGNORED, LABELS
from reward_service.training.train import train_models
from tests.reward_service.training.conftest import write_config

ERROR, OK = LABELS.index("error"), LABELS.index("ok")


def weights(given: Any, errors: int, fine: int) -> list[float] | None:
    settings = ModelConfig.model_validate(
        {
            "kind": "token_classification",
            "granularity": "sentence",
            "template": "",
            "error_types": ["Bad"],
            "class_weights": given,
            "training": {},
        }
    )
    counts = [0, 0]
    counts[ERROR], counts[OK] = errors, fine
    found = class_weights(settings, counts)
    return None if found is None else [float(found[ERROR]), float(found[OK])]


def test_class_weights_by_hand() -> None:
    assert weights("none", 10, 30) is None
    # 40 segments: 10 * 2.0 == 30 * 2/3 == 20.
    assert weights("balanced", 10, 30) == pytest.approx([2.0, 2 / 3])
    assert weights({"ok": 1.0, "error": 3.0}, 10, 30) == [3.0, 1.0]


def test_ignored_segments_are_not_counted() -> None:
    row = SpanRow("here", 0, TextItem("", "x"), ())
    examples = [SpanExample(row, None, np.array(labels)) for labels in ([OK, IGNORED, ERROR], [OK], [IGNORED])]
    counts = class_counts(examples)
    assert (counts[ERROR], counts[OK]) == (1, 2)


def train(folder: Path, encoder_dir: Path, files: tuple[Path, Path], **model: Any) -> Store:
    settings = {
        "kind": "token_classification",
        "granularity": "sentence",
        "template": "question: {question} answer:",
        "error_types": ["Unverifiable"],
        "ignore_error_types": ["Irrelevant"],
        "training": {"epochs": 1},
        **model,
    }
    folder.mkdir(exist_ok=True)
    config = write_config(folder / "train.yaml", encoder_dir, files, folder / "store", models={"mine": settings})
    train_models(load_settings(config, TrainConfig))
    return Store(folder / "store")


def test_errors_that_nobody_marked_teach_nothing(
    tmp_path: Path, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> None:
    with pytest.raises(ConfigError, match="no training segment is of the class 'error' under error_types Unverifyable"):
        train(tmp_path, encoder_dir, feedback_files, error_types=["Unverifyable"])


def test_class_weights_and_language_reach_the_model(
    tmp_path: Path, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> None:
    heavy = train(tmp_path / "a", encoder_dir, feedback_files, class_weights={"error": 50.0, "ok": 1.0}, language="de")
    light = train(tmp_path / "b", encoder_dir, feedback_files, class_weights={"error": 1.0, "ok": 50.0})
    first, second = heavy.resolve("mine").manifest, light.resolve("mine").manifest
    assert (first.segmenter.language, second.segmenter.language) == ("de", "en")
    assert first.calibration is not None
    assert second.calibration is not None
    assert first.calibration.mean < second.calibration.mean - 0.2
