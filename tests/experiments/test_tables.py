"""Tables of made-up runs: ours beside the paper's, in its units, and what is missing named."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from experiments.tables import main, make_tables


def write_figures(root: Path, family: str, arm: str, figures: dict[str, float], truth: Any = None) -> None:
    folder = root / family / "figures" / arm
    folder.mkdir(parents=True)
    content = {name: {"mean": x, "low": x - 0.1, "high": x + 0.1, "n": 9} for name, x in figures.items()}
    (folder / "figures.json").write_text(json.dumps({"figures": content}))
    if truth is not None:
        (folder / "truth.json").write_text(json.dumps(truth))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "small"
    write_figures(
        root,
        "qa",
        "sft",
        {"reward/relevance": 0.6, "rouge_lsum": 0.5, "length_tokens": 25.0},
        {"irrelevant_rate": 0.13},
    )
    write_figures(root, "detox", "initial", {"average_max/toxicity_whole": 0.4, "perplexity": 20.0})
    run = root / "detox" / "fine_grained"
    run.mkdir()
    rows = [{"step": step, "kl": 0.1 * step, "reward/toxicity": -0.3, "length_tokens": 20} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def svg_of(page: str) -> str:
    """The first plot; its words are words, not paths."""
    address = re.search(r"src='data:image/svg\+xml;base64,([^']*)'", page)
    assert address is not None
    return base64.b64decode(address[1]).decode()


def run(*arguments: str) -> Any:
    app = Typer()
    app.command()(main)
    return CliRunner().invoke(app, arguments)


def test_ours_stand_beside_the_papers(root: Path) -> None:
    ablation, _, truth, detox = make_tables([root])["tables"]
    sft = ablation["rows"][0]
    assert sft["paper"]["rouge_lsum"] == 43.13
    ours = sft["ours"][str(root)]
    assert ours["rouge_lsum"] == pytest.approx({"mean": 50.0, "low": 40.0, "high": 60.0})
    assert ours["length_tokens"]["mean"] == 25.0
    assert ours["reward/factuality"] is None
    assert truth["rows"][0]["ours"][str(root)]["truth/irrelevant_rate"]["mean"] == 0.13
    gedi = detox["rows"][1]
    assert (gedi["title"], gedi["arm"], gedi["ours"]) == ("GeDi", None, {})
    assert gedi["paper"] == {"average_max/toxicity_whole": 0.154, "perplexity": 24.78, "dist_2": 0.938, "dist_3": 0.938}


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    ended = run(str(root), "--out", str(out))
    assert ended.exit_code == 0, ended.output
    (names,) = json.loads(out.with_suffix(".json").read_text())["missing"].values()
    assert "detox/holistic" in names
    assert "qa/without_relevance" in names
    assert not {"qa/sft", "detox/initial"} & set(names)
    assert len(names) == len(set(names)) == 9
    assert f"{root} has no figures of: {', '.join(names)}" in ended.output


def test_the_page_needs_nothing_from_outside(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert run(str(root), "--out", str(out)).exit_code == 0
    page = out.read_text()
    assert "reward/toxicity_whole: in none of the runs" in svg_of(page)
    assert "reward/toxicity: in none" not in svg_of(page)
    assert re.findall(r"src='(.{26})", page) == ["data:image/svg+xml;base64,"]
    assert "<td>before, ours (small)</td><td>0.400<br><span class='i'>[0.300, 0.500]</span></td><td>20.00<br>" in page
    assert "<td>before, paper</td><td>0.192</td><td>9.58</td><td>0.947</td><td>0.931</td>" in page
    assert "<td>SFT on all data, paper</td><td>0.537</td><td>0.160</td>" in page
    assert "<td>SFT, ours (small)</td><td>0.130</td><td>–</td>" in page
    row = re.search(r"<td>fine-grained, ours \(small\)</td>(.*?)</tr>", page)
    assert row is not None
    assert set(re.findall(r"<td>(.*?)</td>", row[1])) == {"–"}


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    ended = run(str(tmp_path), "--out", str(tmp_path / "report.html"))
    assert ended.exit_code == 2
    assert not (tmp_path / "report.html").exists()
