"""The command line's train, evaluate, export and models, as a user types them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from reward_service.cli import app
from reward_service.registry.store import Store
from reward_service.training.data_files import DataFile
from reward_service.training.qa_feedback import read_qa_feedback
from tests.reward_service.training.conftest import write_config


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


def as_jsonl(source: Path, target: Path) -> Path:
    """The same feedback in plain rows: the marked answer, then each preference."""
    lines: list[dict[str, Any]] = []
    for row in read_qa_feedback([DataFile(source)]).span_rows():
        spans = [{"start": mark.start, "end": mark.end, "type": mark.error_type} for mark in row.errors]
        lines.append({"fields": row.item.fields, "response": row.item.response, "spans": spans})
    for pair in read_qa_feedback([DataFile(source)]).pair_rows("preference", 0.85):
        for winner, loser in pair.pairs:
            texts = {"chosen": pair.items[winner].response, "rejected": pair.items[loser].response}
            lines.append({"fields": pair.items[0].fields, **texts})
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return target


def test_jsonl_trains_and_judges_both_kinds(
    trained: tuple[Path, Path], encoder_dir: Path, feedback_files: tuple[Path, Path], tmp_path: Path
) -> None:
    train, dev = (as_jsonl(path, tmp_path / f"{path.stem}.jsonl") for path in feedback_files)
    store = tmp_path / "store"
    data = {"format": "jsonl", "train": [str(train)], "dev": [f"{dev}[:80]"]}
    config = write_config(tmp_path / "train.yaml", encoder_dir, feedback_files, store, data=data)
    result = call("train", "--config", config)
    assert result.exit_code == 0, result.output
    figures = tmp_path / "figures.json"
    common = ("--store", store, "--data", f"{dev}[:80]", "--format", "jsonl", "--json", figures)
    counts = {"factuality": ("n_segments", 24), "preference": ("n_pairs", 80 - 24)}
    for name, (key, count) in counts.items():
        judged = call("evaluate", name, *common, "--report", tmp_path / "page.html", "--scores", tmp_path / "s.jsonl")
        assert judged.exit_code == 0, judged.output
        told = json.loads(figures.read_text())
        assert (told[key], told["n_examples"], told["head"]) == (count, 80, name)
        assert told["accuracy"] > 0.9
        assert told["data"] == [f"{dev}[:80]"]
        assert name in (tmp_path / "page.html").read_text()
        lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
        assert lines[0].keys() == {"index", "response", "head", "start", "end", "score", "label", "truth"}
    # The marked answers are the same in both formats, and so is what they teach.
    metrics = Store(store).resolve("factuality").manifest.metrics
    assert metrics == Store(trained[1]).resolve("factuality").manifest.metrics


def test_faults_of_feedback_name_file_line_and_field(
    encoder_dir: Path, feedback_files: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"fields": {"question": "What?", "context": "x"}, "response": "It is red.", "spans": []}
    bare = {**row, "fields": {"question": "What?"}}
    rows.write_text("".join(json.dumps(line) + "\n" for line in (row, bare)), encoding="utf-8")
    data = {"format": "jsonl", "train": [str(rows)], "dev": [str(rows)]}
    config = write_config(tmp_path / "train.yaml", encoder_dir, feedback_files, tmp_path / "store", data=data)
    result = call("train", "--config", config, "--only", "factuality")
    assert result.exit_code == 2
    assert f"{rows}:2: the model's template needs the field 'context'" in result.stderr
    rows.write_text("{\n[]\n", encoding="utf-8")
    result = call("train", "--config", config)
    assert result.exit_code == 2
    assert f"{rows}:1: not JSON" in result.stderr
    assert f"{rows}:2: must be an object, not list" in result.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--data", "a.json[x]"), "START:STOP"),
        (("--data", "{dev}[:99]"), "past the file's 24 rows"),
        (("--data", "{dev}", "--head", "relevance"), "no head 'relevance'; there is factuality"),
        (("--data", "{dev}", "--format", "jsonl"), "dev.json:1: must be an object, not list"),
    ],
)
def test_evaluate_refuses(
    trained: tuple[Path, Path], feedback_files: tuple[Path, Path], options: tuple[str, ...], fault: str
) -> None:
    given = [option.format(dev=feedback_files[1]) for option in options]
    result = call("evaluate", "factuality", "--store", trained[1], *given)
    assert result.exit_code == 2
    assert fault in result.stderr


def test_export_on_given_feedback(trained: tuple[Path, Path], feedback_files: tuple[Path, Path]) -> None:
    result = call("export", "preference", "--store", trained[1], "--data", feedback_files[1])
    assert result.exit_code == 0, result.output
    assert "96 scores" in result.stdout  # 24 questions


@pytest.mark.parametrize(
    "options",
    [("--precision", "bf16"), ("--runtime", "torch"), ("--store", "/nonexistent"), ("--data", "/nonexistent")],
)
def test_export_refuses(trained: tuple[Path, Path], options: tuple[str, str]) -> None:
    result = call("export", "factuality", "--store", trained[1], *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_export_to_all_that_the_service_may_choose_from(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source = Store(trained[1]).resolve("factuality")
    store = tmp_path / "store"
    Store(store).publish(source.path, source.manifest)
    result = call("export", "factuality", "--store", store, "--runtime", "auto", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert [line.partition(": factuality: ")[0].rpartition("/")[2] for line in result.stdout.splitlines()] == [
        "onnxruntime-fp32",
        "openvino-fp32",
    ]
    listed = json.loads(call("models", "list", "--store", store, "--json").stdout)
    figures = listed[0]["exports"]["openvino-fp32"]["parity"]["factuality"]
    assert figures["label_flips"] == 0 <= figures["max_abs_diff"] <= figures["max_allowed"]


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
