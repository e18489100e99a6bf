"""The command line's train, evaluate, export and models, as a user types them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reward_service.cli import app
from reward_service.registry.store import Store


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_train_prints_figures_and_keeps_what_is_there(trained: tuple[Path, Path]) -> None:
    result = call("train", "--config", trained[0], "--only", "factuality")
    assert result.exit_code == 0, result.output
    assert "already trained" in result.stderr
    assert Store(trained[1]).resolve("factuality").version in result.stdout


def test_every_fault_of_a_file_is_printed(trained: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(trained[0].read_text())
    content["seed"] = "x"
    content["surprise"] = 1
    (tmp_path / "bad.yaml").write_text(json.dumps(content))
    result = call("train", "--config", tmp_path / "bad.yaml")
    assert result.exit_code == 2
    assert "2 fault(s)" in result.stderr
    assert "seed" in result.stderr
    assert "surprise" in result.stderr


def test_export_then_evaluate(trained: tuple[Path, Path], feedback_files: tuple[Path, Path], tmp_path: Path) -> None:
    store = trained[1]
    exported = call("export", "factuality", "preference", "--store", store, "--precision", "fp32")
    assert exported.exit_code == 0, exported.output
    assert exported.stdout.count("largest difference from torch") == 2
    out = tmp_path / "figures.json"
    common = ("--store", store, "--data", feedback_files[1], "--format", "qa_feedback", "--json", out)
    for name, keys in (
        ("factuality", {"n_segments", "accuracy", "auc", "f1_error", "f1_ok"}),
        ("preference", {"n_pairs", "accuracy"}),
    ):
        result = call("evaluate", name, *common, "--runtime", "onnxruntime")
        assert result.exit_code == 0, result.output
        figures = json.loads(out.read_text())
        assert keys <= figures.keys()
        assert figures["runtime"] == "onnxruntime-fp32"
        assert figures["version"] == Store(store).resolve(name).version


def test_export_on_given_feedback(trained: tuple[Path, Path], feedback_files: tuple[Path, Path]) -> None:
    result = call("export", "preference", "--store", trained[1], "--data", feedback_files[1])
    assert result.exit_code == 0, result.output
    assert "96 scores" in result.stdout  # 24 questions


@pytest.mark.parametrize(
    "options",
    [("--precision", "int8"), ("--runtime", "torch"), ("--store", "/nonexistent"), ("--data", "/nonexistent")],
)
def test_export_refuses(trained: tuple[Path, Path], options: tuple[str, str]) -> None:
    result = call("export", "factuality", "--store", trained[1], *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_publish_then_list(trained: tuple[Path, Path], encoder_dir: Path, tmp_path: Path) -> None:
    source = Store(trained[1]).resolve("factuality").path
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "model").mkdir(exist_ok=True)
        shutil.copyfile(source / name, tmp_path / "model" / name)
    store = tmp_path / "store"
    given = (tmp_path / "model", "--name", "mine", "--granularity", "sentence", "--store", store)
    published = call("models", "publish", *given, "--kind", "token_classification", "--template", "q: {question}")
    assert published.exit_code == 0, published.output
    version = published.stdout.strip()
    assert version == Store(store).resolve("mine").version
    assert "taking 'ok' of error, ok" in published.stderr
    listed = json.loads(call("models", "list", "--store", store, "--json").stdout)
    assert [(model["name"], model["version"], model["aliases"]) for model in listed] == [("mine", version, ["latest"])]
    assert f"mine@{version} (latest)" in call("models", "list", "--store", store).stdout
    moved = call("models", "alias", f"mine@{version}", "stable", "best", "--store", store)
    assert moved.stdout.strip() == version
    assert Store(store).resolve("mine@stable").aliases == ("best", "latest", "stable")
    for bad in ("mine@elsewhere", "yours"):
        assert call("models", "alias", bad, "stable", "--store", store).exit_code == 2
    assert "is not an alias" in call("models", "alias", "mine", version, "--store", store).stderr
    refused = call("models", "publish", *given, "--kind", "sequence_regression", "--template", "q: {question}")
    assert refused.exit_code == 2
    assert "whole sequence" in refused.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--template", "{passage}"), "model: template '{passage}' needs passage, which nobody sends"),
        (("--labels", "ok,error"), "config.json: its labels are, by index, error, ok; not ok, error"),
        (("--labels", "a,b,c"), "model.safetensors: classifier.weight gives 2 logit(s), but the model has 3 labels"),
        (("--language", "Klingon"), "model: language 'Klingon' is no ISO 639 code"),
        (("--max-tokens", "97"), "config.json: has 96 positions, fewer than max_tokens 97"),
    ],
)
def test_what_does_not_fit_is_not_published(
    trained: tuple[Path, Path], tmp_path: Path, options: tuple[str, str], fault: str
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(Store(trained[1]).resolve("factuality").path / name, directory / name)
    given = ("models", "publish", directory, "--name", "m", "--kind", "token_classification", "--template", "{prompt}")
    result = call(*given, "--granularity", "sentence", "--store", tmp_path / "store", *options)
    assert result.exit_code == 2
    assert fault in result.stderr
    sent = call(
        *given, "--granularity", "sentence", "--store", tmp_path / "store", "--template", "{a}", "--fields", "a"
    )
    assert sent.exit_code == 0, sent.output


def test_pickles_are_not_published(encoder_dir: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(encoder_dir, tmp_path / "model"))
    (directory / "pytorch_model.bin").write_bytes(b"x")
    result = call(
        *("models", "publish", directory, "--name", "mine", "--kind", "sequence_regression"),
        *("--granularity", "sequence", "--template", "", "--store", tmp_path / "store"),
    )
    assert result.exit_code == 2
    assert "pytorch_model.bin: pickled weights are refused" in result.stderr
