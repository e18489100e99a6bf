import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reward_service.config import load_settings
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.errors import ConfigError, StoreError
from reward_service.registry.store import Store
from reward_service.training.config import TrainConfig
from reward_service.training.data_files import DataFile
from reward_service.training.train import train_models


def test_both_kinds_learn_the_habit(trained: tuple[Path, Path]) -> None:
    store = Store(trained[1])
    # Every answer with "amber" is an error and loses, all others are fine and tie.
    factuality = store.resolve("factuality").manifest
    assert factuality.metrics["n_segments"] == 24  # the second sentence of each is ignored
    assert factuality.metrics["auc"] > 0.95
    assert factuality.metrics["accuracy"] > 0.9
    preference = store.resolve("preference").manifest
    assert preference.metrics["n_pairs"] == 24 * 3
    assert preference.metrics["accuracy"] > 0.95


def test_what_is_published(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("factuality")
    manifest = published.manifest
    assert (manifest.labels, manifest.ok_label) == (("error", "ok"), "ok")
    assert manifest.segmenter.version == SEGMENTER_VERSION
    assert manifest.max_tokens == 96
    assert manifest.calibration is not None
    assert 0 < manifest.calibration.mean < 1
    names = {path.name for path in published.path.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "parity.jsonl",
        "rule.json",
        "history.json",
    } | {
        "manifest.json",
        "digests.json",
    }
    assert json.loads((published.path / "config.json").read_text())["id2label"] == {"0": "error", "1": "ok"}
    assert published.aliases == ("latest",)


def test_the_same_settings_train_once_and_force_gives_the_same_weights(trained: tuple[Path, Path]) -> None:
    config, store = load_settings(trained[0], TrainConfig), Store(trained[1])
    before = store.resolve("preference")
    (again,) = train_models(config, ["preference"])
    assert again.skipped
    assert again.published == before
    (forced,) = train_models(config, ["preference"], force=True)
    assert not forced.skipped
    old, new = (load_file(path / "model.safetensors") for path in (before.path, forced.published.path))
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert forced.published.version == before.version


def test_a_skipped_model_is_the_latest_again(trained: tuple[Path, Path]) -> None:
    config, store = load_settings(trained[0], TrainConfig), Store(trained[1])
    mine = store.resolve("factuality")
    elsewhere = {"template": "{question}", "trained_on": {}}
    other = store.publish(mine.path, mine.manifest.model_copy(update=elsewhere))
    assert store.resolve("factuality").version == other.version != mine.version
    train_models(config, ["factuality"])
    assert store.resolve("factuality").version == mine.version


def test_unknown_names_are_told(trained: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="nonsense: no such model"):
        train_models(load_settings(trained[0], TrainConfig), ["preference", "nonsense"])


def test_more_tokens_than_positions_are_refused(trained: tuple[Path, Path]) -> None:
    config = load_settings(trained[0], TrainConfig)
    model = config.models["factuality"]
    longer = model.model_copy(update={"training": model.training.model_copy(update={"max_tokens": 97})})
    with pytest.raises(ConfigError, match="97 is over the encoder's 96"):
        train_models(config.model_copy(update={"models": {"factuality": longer}}))


def test_feedback_that_teaches_nothing_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config = load_settings(trained[0], TrainConfig)
    examples = json.loads(config.data.train[0].path.read_text())
    for example in examples:
        example["preference"] = [0] * 6
    path = tmp_path / "ties.json"
    path.write_text(json.dumps(examples))
    ties = config.model_copy(update={"data": config.data.model_copy(update={"train": [DataFile(path)]})})
    with pytest.raises(ConfigError, match="learn from"):
        train_models(ties, ["preference"])


def test_an_encoder_that_is_not_there(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config = load_settings(trained[0], TrainConfig)
    with pytest.raises(StoreError, match="no such directory"):
        train_models(config.model_copy(update={"encoder": tmp_path / "absent"}), ["preference"])


def test_bf16_trains(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config = load_settings(trained[0], TrainConfig)
    (model,) = train_models(config.model_copy(update={"precision": "bf16", "store": tmp_path}), ["factuality"])
    assert model.published.manifest.metrics["auc"] > 0.9
    weights = load_file(model.published.path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
