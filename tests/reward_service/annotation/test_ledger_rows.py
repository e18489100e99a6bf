from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_service.annotation.ledger_rows import read_ledger
from reward_service.annotation.scored import ModelScore
from reward_service.errors import ConfigError
from reward_service.ledger.export import write_parquet


def row(model: str, score: float, digest: str = "d1", **changes: Any) -> dict[str, Any]:
    """A row with the columns that the ledger's export has, or some of them."""
    return {
        "item_digest": digest,
        "model": model,
        "version": "3fa94c01d2be",
        "runtime": "onnxruntime-fp32",
        "sequence_score": score,
        "segments": [{"start": 0, "end": 4, "score": score, "label": "ok" if model == "relevance" else None}],
        "prompt": "p",
        "response": "One.",
        "fields": '{"question": "q"}',
        **changes,
    }


def exported(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_scores_of_a_response_stand_together(tmp_path: Path) -> None:
    rows = [
        row("relevance", 0.2),
        row("completeness", 1.5),
        row("relevance", 0.25),
        row("relevance", 0.5, "d2", response="Two."),
    ]
    read = read_ledger(exported(tmp_path / "a.parquet", *rows))
    first, second = read.responses
    assert (first.prompt, first.fields, first.response) == ("p", {"question": "q"}, "One.")
    newest = ModelScore(0.25, (0.25,))
    assert first.scores == {"relevance@3fa94c01d2be": newest, "completeness@3fa94c01d2be": ModelScore(1.5)}
    assert second.response == "Two."


def test_scores_without_a_text_are_counted(tmp_path: Path) -> None:
    bare = {"prompt": None, "response": None, "fields": None}
    read = read_ledger(exported(tmp_path / "a.parquet", row("relevance", 0.2), row("relevance", 0.2, "d2", **bare)))
    assert (len(read.responses), read.without_text) == (1, 1)
    with pytest.raises(ConfigError, match="holds no texts"):
        read_ledger(exported(tmp_path / "b.parquet", row("relevance", 0.2, **bare)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no column item_digest"):
        read_ledger(exported(tmp_path / "a.parquet", {"cats": 1}))
    (tmp_path / "b.parquet").write_text("no parquet")
    for name in ("b.parquet", "c.parquet"):
        with pytest.raises(ConfigError, match=name):
            read_ledger(tmp_path / name)


def test_the_ledgers_own_export_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.parquet"
    assert write_parquet([row("relevance", 0.2), row("completeness", 1.5)], path, lambda _: None) == 2
    (found,) = read_ledger(path).responses
    assert found.scores.keys() == {"relevance@3fa94c01d2be", "completeness@3fa94c01d2be"}
