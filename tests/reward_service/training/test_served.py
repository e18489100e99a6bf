"""Training and serving agree: what `evaluate` says of a segment is what a running service says of it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from reward_proto import ScoreReply
from reward_service.cli import app
from reward_service.training.data_files import DataFile
from reward_service.training.dataset import read_feedback
from tests.reward_service.test_serve_process import TIMEOUT_S, TOLERANCE
from tests.reward_service.training.conftest import COLOURS, WORDS

NAMES = ("factuality", "preference")


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def write_rows(path: Path) -> Path:
    """Answers of random words: marked ones, and pairs."""
    order = random.Random(0)
    words = [word for word in (*WORDS, *COLOURS) if word.isalpha()]

    def answer() -> str:
        sentences = (" ".join(order.choices(words, k=order.randint(1, 6))) for _ in range(3))
        return " ".join(f"It {sentence}." for sentence in sentences)

    fields = {"question": "What is the colour?", "context": "The thing is here."}
    rows: list[dict[str, Any]] = [{"fields": fields, "response": answer(), "spans": []} for _ in range(20)]
    rows += [{"fields": fields, "chosen": answer(), "rejected": answer()} for _ in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_evaluate_and_the_service_give_the_same_scores(
    tmp_path: Path, trained: tuple[Path, Path], start_service: Callable[..., Any], runtime: str
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    common = ("--store", trained[1])
    if runtime != "torch":
        run("export", *NAMES, *common, "--runtime", runtime, "--precision", "fp32")
    lines: list[dict[str, Any]] = []
    for name in NAMES:
        path = tmp_path / f"{name}.jsonl"
        given = ("--data", rows, "--format", "jsonl", "--scores", path, "--runtime", runtime)
        run("evaluate", name, *common, *given)
        lines.extend(json.loads(line) for line in path.read_text().splitlines())

    feedback = read_feedback("jsonl", [DataFile(rows)])
    items = {(row.index, 0): row.item for row in feedback.span_rows()}
    for pair in feedback.pair_rows("preference", 0.85):
        items |= {(pair.index, number): item for number, item in enumerate(pair.items)}
    models = [{"name": name, "runtime": runtime, "precision": "fp32"} for name in NAMES]
    service = start_service(store=str(trained[1]), models=models)
    sent = [{"prompt": item.prompt, "response": item.response, "fields": item.fields} for item in items.values()]
    reply = httpx.post(f"{service.url}/v1/score", json={"items": sent}, timeout=TIMEOUT_S)
    assert reply.status_code == 200, reply.text
    results = dict(zip(items, ScoreReply.model_validate_json(reply.content).results, strict=True))
    assert len(lines) == 20 * 3 + 20 * 2  # three sentences of each marked answer, and both answers of each pair
    assert len({line["score"] for line in lines}) > 90, "the models must tell the responses apart"
    for line in lines:
        segments = results[line["index"], line["response"]].scores[line["head"]].segments or []
        (served,) = [one for one in segments if (one.start, one.end) == (line["start"], line["end"])]
        assert served.score == pytest.approx(line["score"], abs=TOLERANCE, rel=0)
        assert served.label == line["label"]
