import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_proto import SegmentScore
from rl_client.errors import DataError
from rl_client.offline.ledger_export import is_ledger_export, read_ledger

ROW = {
    "item_digest": "d" * 64,
    "client_job": "job",
    "model": "good",
    "version": "aaaaaaaaaaaa",
    "runtime": "fake-fp32",
    "granularity": "sentence",
    "segments": [{"start": 0, "end": 2, "score": 0.1, "label": "ok"}],
    "sequence_score": 0.1,
    "truncated_tokens": 0,
    "cached": True,
}


def write(path, row):
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


@pytest.mark.parametrize("segments", [ROW["segments"], '[[0,2,0.1,"ok"]]'])
def test_scores_are_read_with_their_digests(tmp_path, segments):
    path = write(tmp_path / "l.parquet", {**ROW, "segments": segments})
    assert is_ledger_export(pq.read_schema(path))
    ((digest, score),) = read_ledger(path)
    assert digest == "d" * 64
    assert score.segments == [SegmentScore(start=0, end=2, score=0.1, label="ok")]
    assert (score.model, score.version, score.runtime, score.sequence_score) == (
        "good",
        "aaaaaaaaaaaa",
        "fake-fp32",
        0.1,
    )


def test_a_file_without_the_columns_is_none(tmp_path):
    row = {name: value for name, value in ROW.items() if name != "runtime"}
    assert not is_ledger_export(pq.read_schema(write(tmp_path / "l.parquet", row)))


def test_a_row_that_is_no_score_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the score of d+ by good"):
        list(read_ledger(write(tmp_path / "l.parquet", {**ROW, "granularity": "word"})))
