import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_proto import Granularity, ModelScore, ScoreError, ScoreItem, item_digest
from reward_proto.errors import ErrorCode
from rl_client.errors import DataError
from rl_client.offline import reuse
from rl_client.offline.parts import Parts, Plan
from rl_client.offline.reuse import ReuseIndex
from rl_client.offline.rows import Row
from rl_client.offline.scored_file import ScoredRow, ScoreSource, make_table

PINS = {"good": ("v1", "r"), "length": ("v2", "r")}


def row(number, response):
    return Row(number, f"q{number}", None, ScoreItem(prompt="p", response=response, fields={"f": "x"}), {})


def score(model, value, version=None, runtime="r", error=None):
    return ModelScore(
        model=model,
        version=version or PINS[model][0],
        runtime=runtime,
        granularity=Granularity.SEQUENCE,
        segments=None if error else [],
        sequence_score=None if error else value,
        error=error,
    )


@pytest.fixture
def write_scored(tmp_path):
    """Writes what `score` would, of rows with their scores by model."""

    def write(name, *scored):
        plan = Plan("d" * 64, len(scored), 100, {}, PINS)
        rows = [ScoredRow(one, scores, dict.fromkeys(scores, ScoreSource.COMPUTED)) for one, scores in scored]
        with Parts(tmp_path / name, plan) as parts:
            parts.write(0, make_table(rows, list(PINS)), Counter())
            parts.finish(Counter())
        return tmp_path / name

    return write


@pytest.fixture
def build(tmp_path):
    return lambda *files, pins=PINS: ReuseIndex.build(tmp_path / "i.sqlite", files, pins)


def values(found):
    return [{name: one.sequence_score for name, one in of_row.items()} for of_row in found]


def test_scores_are_found_by_text_wherever_the_row_stands(write_scored, build):
    file = write_scored(
        "a.parquet", *((row(n, f"r{n}"), {"good": score("good", n), "length": score("length", -n)}) for n in range(3))
    )
    found = build(file).find([row(9, "r2"), row(10, "new"), row(11, "r0"), row(12, "r2")], PINS)
    assert values(found) == [{"good": 2, "length": -2}, {}, {"good": 0, "length": 0}, {"good": 2, "length": -2}]


@pytest.mark.parametrize("other", [{"version": "v0"}, {"runtime": "s"}])
def test_scores_of_another_version_or_runtime_are_not_the_same_number(write_scored, build, other):
    file = write_scored("a.parquet", (row(0, "r"), {"good": score("good", 1, **other), "length": score("length", 2)}))
    assert values(build(file).find([row(0, "r")], PINS)) == [{"length": 2}]


def test_errors_are_asked_for_again(write_scored, build):
    error = ScoreError(code=ErrorCode.OVERLOADED, message="m", retryable=True)
    file = write_scored(
        "a.parquet", (row(0, "r"), {"good": score("good", 0, error=error), "length": score("length", 2)})
    )
    assert values(build(file).find([row(0, "r")], PINS)) == [{"length": 2}]


def test_other_fields_are_another_text(write_scored, build):
    file = write_scored("a.parquet", (row(0, "r"), {"good": score("good", 1), "length": score("length", 2)}))
    other = Row(0, "q0", None, ScoreItem(prompt="p", response="r", fields={"f": "y"}), {})
    assert values(build(file).find([other], PINS)) == [{}]


def test_the_earlier_file_wins_and_the_later_one_adds(write_scored, build):
    first = write_scored("a.parquet", (row(0, "r"), {"good": score("good", 1), "length": score("length", 2)}))
    second = write_scored(
        "b.parquet",
        *(
            (row(n, text), {"good": score("good", 5), "length": score("length", 6)})
            for n, text in enumerate(["r", "s"])
        ),
    )
    found = build(first, second).find([row(0, "r"), row(1, "s")], PINS)
    assert values(found) == [{"good": 1, "length": 2}, {"good": 5, "length": 6}]


def test_a_ledger_export_is_read(tmp_path, build):
    record = {
        "item_digest": item_digest("p", "r", {"f": "x"}),
        "segments": '[[0,1,0.5,"ok"]]',
        **score("good", 0.5).model_dump(mode="json", exclude={"segments", "error", "cached"}),
    }
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "ledger.parquet")
    (found,) = build(tmp_path / "ledger.parquet").find([row(0, "r")], PINS)
    assert [segment.score for segment in found["good"].segments or []] == [0.5]


def test_the_responses_of_evaluate_are_read(tmp_path, build):
    line = {"id": "q0", "prompt": "p", "fields": {"f": "x"}, "response": "r"}
    line["scores"] = {"good": score("good", 3).model_dump(mode="json")}
    (tmp_path / "responses.jsonl").write_text(json.dumps(line) + "\n")
    assert values(build(tmp_path / "responses.jsonl").find([row(0, "r")], PINS)) == [{"good": 3}]


def test_more_keys_than_one_query_takes(write_scored, build, monkeypatch):
    monkeypatch.setattr(reuse, "_QUERY_KEYS", 2)
    monkeypatch.setattr(reuse, "_INSERT_ROWS", 3)
    rows = [(row(n, f"r{n}"), {"good": score("good", n), "length": score("length", n)}) for n in range(5)]
    found = build(write_scored("a.parquet", *rows)).find([one for one, _ in rows], PINS)
    assert values(found) == [{"good": n, "length": n} for n in range(5)]


def test_a_file_of_another_kind_is_refused(tmp_path, build):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="neither by"):
        build(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"response": "r"}\n')
    with pytest.raises(DataError, match="line 1: no 'scores'"):
        build(tmp_path / "b.jsonl")
