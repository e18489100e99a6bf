"""The Parquet file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reward_service.ledger.answer import Answer
from reward_service.ledger.database import Database
from reward_service.ledger.export import GROUP_ROWS, write_parquet
from reward_service.ledger.reader import Filters, Reading
from reward_service.ledger.rows import make_rows


def test_every_value_comes_back(database: Database, make_answer: Callable[..., Answer], tmp_path: Path) -> None:
    for seq, texts in enumerate((True, False)):
        database.write(make_rows(make_answer(1_700_000_000_123 + seq), 5, seq, texts=texts))
    path, more = tmp_path / "scores.parquet", []
    rows = list(Reading(database, Filters()).rows())
    assert write_parquet(Reading(database, Filters()).rows(), path, more.append) == 4
    assert more == [4]
    assert pq.read_table(path).to_pylist() == rows
    assert [path.name for path in tmp_path.iterdir() if "ledger" not in path.name] == ["scores.parquet"]


def test_rows_are_in_memory_a_group_at_a_time(make_answer: Callable[..., Answer], tmp_path: Path) -> None:
    row = {"model": "one", "segments": [{"start": 0, "end": 1, "score": 0.5, "label": None}]}
    asked = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal asked
        for _ in range(2 * GROUP_ROWS + 7):
            asked += 1
            yield row

    asked_when_told: list[int] = []
    path = tmp_path / "scores.parquet"
    assert write_parquet(rows(), path, lambda _: asked_when_told.append(asked)) == 2 * GROUP_ROWS + 7
    assert asked_when_told == [GROUP_ROWS, 2 * GROUP_ROWS, 2 * GROUP_ROWS + 7]
    assert pq.ParquetFile(path).metadata.num_row_groups == 3


def test_nothing_is_a_file_without_rows(tmp_path: Path) -> None:
    assert write_parquet([], tmp_path / "scores.parquet", lambda _: None) == 0
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 0


def test_what_ends_early_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_parquet([{"model": "old"}], path, lambda _: None)

    def rows() -> Iterator[dict[str, Any]]:
        yield {"model": "new"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_parquet(rows(), path, lambda _: None)
    assert pq.read_table(path).column("model").to_pylist() == ["old"]
    assert list(tmp_path.iterdir()) == [path]
