"""A network of several heads: trained from settings, published, judged, exported."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reward_service.cli import app
from reward_service.config import load_settings
from reward_service.errors import ConfigError
from reward_service.registry.store import Published
from reward_service.training.config import TrainConfig
from reward_service.training.provenance import settings_digest
from reward_service.training.train import train_models
from tests.reward_service.training.conftest import write_config

NETWORK = {"heads": ["factuality", "preference"], "template": "question: {question} context: {context} answer:"}


def settings(folder: Path, encoder_dir: Path, files: tuple[Path, Path], **network: Any) -> Path:
    return write_config(
        folder / "train.yaml", encoder_dir, files, folder / "store", networks={"quality": {**NETWORK, **network}}
    )


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> tuple[Path, Published]:
    config = settings(tmp_path_factory.mktemp("network"), encoder_dir, feedback_files)
    (trained,) = train_models(load_settings(config, TrainConfig), ["quality"])
    return config, trained.published


def test_every_head_learns_its_habit(network: tuple[Path, Published]) -> None:
    manifest = network[1].manifest
    factuality, preference = manifest.heads
    assert (factuality.name, preference.name) == ("factuality", "preference")
    assert factuality.metrics["n_segments"] == 24
    assert factuality.metrics["auc"] > 0.95
    assert preference.metrics["n_pairs"] == 24 * 3
    assert preference.metrics["accuracy"] > 0.95
    for head in manifest.heads:
        assert head.calibration is not None
        assert head.calibration.std > 0
    assert manifest.granularity == "sentence"


def test_the_files_say_what_the_columns_are(network: tuple[Path, Published]) -> None:
    published = network[1]
    labels = json.loads((published.path / "config.json").read_text())["id2label"]
    assert labels == {"0": "factuality.error", "1": "factuality.ok", "2": "preference"}
    rules = json.loads((published.path / "rule.json").read_text())["heads"]
    assert rules["factuality"]["error_types"] == ["Unverifiable"]
    assert rules["preference"]["pairs"] == "preference"


def test_it_is_trained_once_and_again_when_a_heads_model_changes(
    network: tuple[Path, Published], tmp_path: Path, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> None:
    config = load_settings(network[0], TrainConfig)
    (again,) = train_models(config, ["quality"])
    assert again.skipped
    changed = json.loads(network[0].read_text())
    changed["models"]["factuality"]["min_error_words"] = 1
    (tmp_path / "train.yaml").write_text(json.dumps(changed))
    assert settings_digest(load_settings(tmp_path / "train.yaml", TrainConfig), "quality") != settings_digest(
        config, "quality"
    )


def test_evaluate_judges_each_head_and_export_agrees(
    network: tuple[Path, Published], tmp_path: Path, feedback_files: tuple[Path, Path]
) -> None:
    store = network[1].path.parents[1]
    run = CliRunner()
    common = ["evaluate", "quality", "--store", str(store), "--data", str(feedback_files[1])]
    result = run.invoke(app, [*common, "--json", str(tmp_path / "all.json")])
    assert result.exit_code == 0, result.output
    heads = json.loads((tmp_path / "all.json").read_text())["heads"]
    for head in network[1].manifest.heads:
        for figure in ("accuracy", "loss"):
            assert heads[head.name][figure] == pytest.approx(head.metrics[figure], abs=1e-5)
    exported = run.invoke(app, ["export", "quality", "--store", str(store)])
    assert exported.exit_code == 0, exported.output
    flat = ["--head", "preference", "--runtime", "onnxruntime", "--json", str(tmp_path / "one.json")]
    one = run.invoke(app, [*common, *flat])
    assert one.exit_code == 0, one.output
    figures = json.loads((tmp_path / "one.json").read_text())
    assert figures["accuracy"] == pytest.approx(heads["preference"]["accuracy"])
    assert figures["n_pairs"] == 24 * 3


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"heads": ["factuality"]}, r"networks\.quality\.heads"),
        ({"heads": ["factuality", "nobody"]}, "quality.heads: 'nobody' is none of models"),
        ({"heads": ["factuality", "factuality"]}, "different names"),
        ({"weights": {"nobody": 2.0}}, "no head: nobody"),
        ({"weights": {"factuality": 0}}, r"weights\.factuality"),
        ({"template": "{nobody}"}, "not 'nobody'"),
        ({"template": "{"}, "template"),
    ],
)
def test_faulty_settings_are_told(
    tmp_path: Path, encoder_dir: Path, feedback_files: tuple[Path, Path], changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_settings(settings(tmp_path, encoder_dir, feedback_files, **changes), TrainConfig)


def test_a_network_may_not_have_a_models_name(
    tmp_path: Path, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> None:
    config = write_config(
        tmp_path / "train.yaml", encoder_dir, feedback_files, tmp_path / "store", networks={"factuality": NETWORK}
    )
    with pytest.raises(ConfigError, match="factuality: a model has this name"):
        load_settings(config, TrainConfig)
