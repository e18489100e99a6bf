"""`evaluate --format preferences` and `--format steps`, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from reward_service.cli import app
from reward_service.registry.store import Store
from reward_service.training.export import export

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'so'"
FIELDS = {"question": "What is the colour of the thing?", "context": "The thing is here."}


def answer(colour: str) -> str:
    return f"The colour of the thing is {colour}. Nobody knows much about that here."


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def written(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def preferences(written: Callable[..., Path]) -> Path:
    """The trained model prefers every colour to amber; the last row is the wrong way round."""
    rows = [
        {"prompt": HOSTILE, "fields": FIELDS, "chosen": answer(colour), "rejected": answer("amber"), "subset": colour}
        for colour in ("red", "blue", "green")
    ]
    rows.append(
        {"prompt": "p", "fields": FIELDS, "chosen": answer("amber"), "rejected": answer("red"), "subset": "red"}
    )
    return written(rows)


def test_preferences_by_subset_across_runtimes(trained: tuple[Path, Path], preferences: Path, tmp_path: Path) -> None:
    store = trained[1]
    published = Store(store).resolve("preference")
    for name in ("preference", "factuality"):
        export(Store(store).resolve(name))
    out, page, scores = tmp_path / "out.json", tmp_path / "page.html", tmp_path / "scores.jsonl"
    result = call(
        *("evaluate", "preference", "--store", store, "--data", preferences, "--format", "preferences"),
        *("--also-runtime", "onnxruntime", "--against", "factuality", "--json", out, "--report", page),
        *("--scores", scores),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(out.read_text())
    assert (told["name"], told["version"], told["runtime"]) == ("preference", published.version, "torch-fp32")
    assert (told["n_pairs"], told["accuracy"]) == (4, 0.75)
    assert {name: one["accuracy"] for name, one in told["subsets"].items()} == {"blue": 1.0, "green": 1.0, "red": 0.5}
    assert told["mean_of_subsets"] == pytest.approx(2.5 / 3)
    assert told["calibration"]["ece"] > 0
    assert len(told["models"]) == 4
    (agreement,) = told["agreement"]
    assert agreement["same"] == 1.0, "both know amber"
    for stability in told["stability"]:
        assert (stability["first"], stability["second"]) == ("torch-fp32", "onnxruntime-fp32")
        assert stability["largest_difference"] < 1e-4
        assert stability["same"] == 1.0
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    assert len(lines) == 16
    assert len(lines[0]["scores"]) == 2


def test_steps(trained: tuple[Path, Path], written: Callable[..., Path], tmp_path: Path) -> None:
    steps = [f"The colour of the thing is {colour}." for colour in ("red", "amber", "blue")]
    rows = [
        {"prompt": HOSTILE, "fields": FIELDS, "steps": steps, "labels": [True, False, True]},
        {"prompt": "p", "fields": FIELDS, "completions": steps[:2], "labels": [True, True]},
    ]
    page = tmp_path / "page.html"
    common = ("evaluate", "factuality", "--store", trained[1], "--data", written(rows), "--format", "steps")
    result = call(*common, "--report", page)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["n_steps"], told["n_rows"]) == (5, 2)
    assert {"auc", "f1_wrong", "kappa", "first_error", "subsets", "calibration"} <= told.keys()
    assert told["subsets"].keys() == {"all"}
    assert "<script" not in page.read_text()


def test_faults_are_told(trained: tuple[Path, Path], preferences: Path) -> None:
    store = trained[1]
    for arguments, fault in (
        (("--format", "steps"), "row 0: steps"),
        (("--format", "preferences", "--against", "nobody"), "nobody"),
        (("--format", "jsonl", "--against", "factuality"), "compared on benchmarks"),
    ):
        result = call("evaluate", "preference", "--store", store, "--data", preferences, *arguments)
        assert (result.exit_code, fault in result.stderr) == (2, True), result.output
