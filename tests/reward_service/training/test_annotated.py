"""People annotate in Chromium, the service exports what they said, and `reward-service train` learns from it."""

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reward_service.cli import app
from tests.reward_service.training.conftest import COLOURS, write_config

FIRST = "👍🏽 The colour of the thing is {}."
SECOND = "\r\nNobody knows much about that here. 🎉"


def call(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def annotate(page: Any, responses: list[str], *, reload: bool) -> None:
    """Mark the first sentence as unverifiable where it says amber, prefer every other answer to amber, and finish."""
    shown = page.locator("#response").evaluate("area => area.textContent")
    assert shown == responses[0]
    if "amber" in responses[0]:
        page.focus("#response")
        page.keyboard.press("Control+Home")
        page.keyboard.press("Shift+End")
        page.keyboard.press("5")
        assert page.locator("#response .mark").all_inner_texts() == [FIRST.format("amber")]
    page.keyboard.press("Alt+r")
    pairs = [(a, b) for a in range(1, 5) for b in range(a + 1, 5)]
    if reload:
        page.keyboard.press("0")
        page.locator("#saved", has_text="saved").wait_for()
        page.reload()
        page.locator("#pairs [aria-pressed=true]").wait_for(state="attached")
        assert page.locator("#response .mark").count() == ("amber" in responses[0])
        page.keyboard.press("Alt+r")
        page.keyboard.press("ArrowUp")
    for a, b in pairs:
        wrong = [number for number in (a, b) if "amber" in responses[number - 1]]
        page.keyboard.press(str(a + b - wrong[0]) if wrong else "0")
    page.keyboard.press("Control+Enter")


@pytest.mark.slow
def test_a_model_learns_from_what_was_annotated_on_the_page(
    page: Any,
    start_service: Callable[..., Any],
    tiny_store: Path,
    encoder_dir: Path,
    feedback_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    orders = [list(order) for order in permutations(COLOURS)]
    texts = [[FIRST.format(colour) + SECOND for colour in order] for order in orders]
    tasks = tmp_path / "tasks.json"
    example = {"question": "What is the colour of the thing?", "passages": [["thing", "The thing is here."]]}
    questions = [
        {**example, **{f"prediction {number}": text for number, text in enumerate(responses, start=1)}}
        for responses in texts
    ]
    tasks.write_text(json.dumps(questions), encoding="utf-8")
    db = tmp_path / "annotations.db"
    served = [{"name": "completeness", "runtime": "onnxruntime"}]
    service = start_service(store=str(tiny_store), models=served, annotate={"path": str(db), "tasks": [str(tasks)]})
    page.goto(f"{service.url}/annotate")
    page.fill("#name", "Zoë")
    page.press("#name", "Tab")
    for number, responses in enumerate(texts):
        page.locator("#place", has_text=f"{number + 1} of 24, new").wait_for()
        annotate(page, responses, reload=number in (0, 20))
    page.locator("#state", has_text="24 of 24 done").wait_for()
    assert service.end() == 0

    exported = tmp_path / "feedback.json"
    call("annotations", "export", "--db", db, "--out", exported)
    found = json.loads(exported.read_text(encoding="utf-8"))
    marked = [example for example in found if example["feedback"]["errors"]]
    assert len(found) == 24
    assert [example["prediction 1"] for example in marked] == [text[0] for text in texts if "amber" in text[0]]
    for example in marked:
        (error,) = example["feedback"]["errors"]
        assert example["prediction 1"][error["start"] : error["end"]] == FIRST.format("amber")
    store = tmp_path / "store"
    training = {"epochs": 20, "batch_size": 8, "learning_rate": 1e-2, "max_tokens": 96}
    files = (exported, feedback_files[1])
    config = write_config(tmp_path / "train.yaml", encoder_dir, files, store, training=training)
    call("train", "--config", config)
    for name, figure in (("factuality", "f1_error"), ("preference", "accuracy")):
        out = tmp_path / f"{name}.json"
        call("evaluate", name, "--store", store, "--data", feedback_files[1], "--json", out)
        assert json.loads(out.read_text())[figure] > 0.95
