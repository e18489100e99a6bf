"""`ledger export` and `ledger stats`, as a person calls them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cli import app
from reward_service.domain import Head, ItemScore, ModelCard, ModelOutcome, TextItem
from reward_service.ledger.answer import Answer, Asker
from reward_service.ledger.database import Database, database_url
from reward_service.ledger.rows import make_rows

HOUR_MS = 3_600_000
HEAD = Head(ModelKind.SEQUENCE_REGRESSION)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Steps 0 to 9, one an hour since 1970, each with one score of two models."""
    path = tmp_path / "ledger.db"
    database = Database(database_url(path))
    database.prepare()
    cards = [
        ModelCard(name, name[0] * 12, "", (), HEAD, Granularity.SEQUENCE, "en", "", 9, "fake-fp32")
        for name in ("one", "two")
    ]
    for step in range(10):
        models = tuple(ModelOutcome(card, (ItemScore((), step / 10),)) for card in cards)
        asker = Asker(f"r{step}", "[job]", "run", step)
        answer = Answer(step * HOUR_MS, asker, ("0",), (TextItem("p", "r"),), models)
        database.write(make_rows(answer, 1, step, texts=False))
    database.close()
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)])


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ([], [(step, model) for step in range(10) for model in ("one", "two")]),
        (["--model", "two", "--last-step", "1"], [(0, "two"), (1, "two")]),
        (["--version", "oooooooooooo", "--first-step", "9"], [(9, "one")]),
        (["--since", "1970-01-01T02:00", "--until", "1970-01-01T03:00:00"], [(2, "one"), (2, "two")]),
        (["--since", "1970-01-02"], []),
        (["--job", "[job]", "--run", "other"], []),
    ],
    ids=str,
)
def test_export(ledger: Path, tmp_path: Path, filters: list[str], rows: list[tuple[int, str]]) -> None:
    out = tmp_path / "scores.parquet"
    ended = call("export", "--ledger", ledger, "--out", out, *filters)
    assert ended.exit_code == 0, ended.output
    assert f"{len(rows)} scores in " in ended.stdout
    assert [(row["step"], row["model"]) for row in pq.read_table(out).to_pylist()] == rows


def test_stats(ledger: Path, tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    settings = {"store": "s", "models": [{"name": "m"}], "ledger": {"path": str(ledger)}}
    config.write_text(yaml.safe_dump(settings))
    told = json.loads(call("stats", "--config", config, "--json").stdout)
    assert (told["items"], told["scores"]) == (10, 20)
    assert told["runs"] == [{"client_job": "[job]", "run": "run", "items": 10, "first_step": 0, "last_step": 9}]
    shown = call("stats", "--config", config).stdout
    assert "20 scores of 10 items" in shown
    assert "[job]" in shown
    assert "0.4500" in shown


def test_faults_are_told_without_a_trace(tmp_path: Path, ledger: Path) -> None:
    config = tmp_path / "service.yaml"
    config.write_text(yaml.safe_dump({"store": "s", "models": [{"name": "m"}]}))
    nowhere = tmp_path / "nowhere.db"
    for arguments, told in (
        (["--ledger", nowhere], "no such file"),
        (["--ledger", "postgresql://127.0.0.1:1/db"], "refused"),
        (["--config", config], "the service keeps none"),
        (["--config", config, "--ledger", ledger], "either --config or --ledger"),
        ([], "either --config or --ledger"),
        (["--ledger", config], "no database"),
    ):
        ended = call("stats", *arguments)
        assert ended.exit_code == 2, arguments
        assert told in ended.stderr, ended.stderr
        assert isinstance(ended.exception, SystemExit)
    ended = call("export", "--ledger", ledger, "--out", tmp_path / "no" / "folder.parquet")
    assert ended.exit_code == 2
    assert "no/folder.parquet" in ended.stderr
