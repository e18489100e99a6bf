"""What the service's ledger exports is what the client reuses scores from."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reward_proto import SegmentScore, item_digest
from reward_service.ledger.export import SCHEMA
from rl_client.offline.reuse import ReuseIndex
from rl_client.offline.rows import Columns, parse_row

PINS = {"relevance": ("3fa94c01d2be", "onnxruntime-fp32")}


def test_a_row_of_the_export_is_found_by_its_text(tmp_path: Path) -> None:
    exported = {
        "scored_at": datetime(2026, 1, 2, tzinfo=UTC),
        "item_digest": item_digest("p", "a b", {"question": "Q"}),
        "model": "relevance",
        "version": "3fa94c01d2be",
        "runtime": "onnxruntime-fp32",
        "granularity": "sub_sentence",
        "sequence_score": 0.25,
        "segments": [{"start": 0, "end": 3, "score": 0.25, "label": "ok"}],
        "truncated_tokens": 2,
        "cached": False,
    }
    pq.write_table(pa.Table.from_pylist([exported], schema=SCHEMA), tmp_path / "ledger.parquet")
    record = {"prompt": "p", "response": "a b", "fields": {"question": "Q"}}
    row = parse_row("f", 0, record, Columns())
    index = ReuseIndex.build(tmp_path / "index.sqlite", [tmp_path / "ledger.parquet"], PINS)
    (found,) = index.find([row], PINS)
    assert found["relevance"].segments == [SegmentScore(start=0, end=3, score=0.25, label="ok")]
    assert (found["relevance"].sequence_score, found["relevance"].truncated_tokens) == (0.25, 2)
