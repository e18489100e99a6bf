import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_proto import Granularity, ModelScore, ScoreError, ScoreItem, SegmentScore
from reward_proto.errors import ErrorCode
from rl_client.errors import DataError
from rl_client.offline.rows import Row
from rl_client.offline.scored_file import (
    METADATA_KEY,
    ScoredRow,
    ScoreSource,
    is_scored,
    make_table,
    parse_scores,
    read_scored,
    scored_schema,
)

NAMED = {"version": "aaaaaaaaaaaa", "runtime": "fake-fp32"}
GOOD = ModelScore(
    model="good",
    granularity=Granularity.SENTENCE,
    segments=[SegmentScore(start=0, end=3, score=1 / 3, label="ok", logits=[0.5])],
    sequence_score=1 / 3,
    truncated_tokens=4,
    cached=True,
    **NAMED,
)
FAILED = ModelScore(
    model="length",
    granularity=Granularity.SEQUENCE,
    segments=None,
    error=ScoreError(code=ErrorCode.TOO_LONG, message="m", retryable=False),
    **NAMED,
)
EMPTY = ModelScore(model="length", granularity=Granularity.SEQUENCE, segments=[], sequence_score=0.0, **NAMED)


def scored(number, length):
    item = ScoreItem(id=str(number), prompt="p", response="a é", fields={"question": "Q"})
    row = Row(number, f"q{number}", None if number else 1, item, {"kind": "k"})
    return ScoredRow(row, {"good": GOOD, "length": length}, {"good": ScoreSource.CACHED, "length": ScoreSource.FAILED})


@pytest.fixture
def path(tmp_path):
    table = make_table([scored(0, FAILED), scored(1, EMPTY)], ["good", "length"])
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: b"{}"}), tmp_path / "s.parquet")
    return tmp_path / "s.parquet"


def test_what_is_written_is_read_again(path):
    first, second = read_scored(path)
    assert first["scores"]["good"] == GOOD.model_copy(
        update={"cached": False, "segments": [SegmentScore(start=0, end=3, score=1 / 3, label="ok")]}
    )
    assert first["scores"]["length"] == FAILED
    assert second["scores"]["length"] == EMPTY
    assert first["sources"] == {"good": "cached", "length": "failed"}
    assert (first["row"], first["id"], first["sample"], second["sample"]) == (0, "q0", 1, None)
    assert (first["prompt"], first["response"], first["fields"]) == ("p", "a é", {"question": "Q"})
    assert first["kept"] == {"kind": "k"}


def test_a_score_that_failed_is_null_with_a_typed_error_and_not_0(path):
    scores = pq.read_table(path)["scores"].combine_chunks().field("length")
    assert scores.field("sequence_score").to_pylist() == [None, 0.0]
    assert scores.field("segments").to_pylist() == [None, []]
    assert scores.field("error").field("code").to_pylist() == ["too_long", None]


def test_columns_can_be_chosen(path):
    assert [set(record) for record in read_scored(path, ["id", "scores"])] == [{"id", "scores"}] * 2


def test_other_files_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert not is_scored(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="was not written by"):
        list(read_scored(tmp_path / "a.parquet"))
    (tmp_path / "b.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_scored(tmp_path / "b.parquet"))


def test_a_score_that_breaks_the_contract_is_named():
    with pytest.raises(DataError, match=r"line 3: scores\.version"):
        parse_scores("line 3", {"good": {"model": "good"}})


def test_the_schema_has_a_column_of_scores_for_each_model():
    schema = scored_schema(["b", "a"])
    assert [field.name for field in schema.field("scores").type] == ["b", "a"]
