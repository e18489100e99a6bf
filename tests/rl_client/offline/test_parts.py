import os
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from reward_proto import Granularity, ModelScore, ScoreItem
from rl_client.errors import DataError, RunFolderError, VersionChangedError
from rl_client.offline.parts import Parts, Plan
from rl_client.offline.rows import Row
from rl_client.offline.scored_file import ScoredRow, ScoreSource, make_table

PLAN = Plan("d" * 64, rows=7, chunk_rows=3, columns={"id": "id", "keep": ("a",)}, models={"length": ("v1", "r")})


def table(start, stop):
    rows = []
    for n in range(start, stop):
        score = ModelScore(
            model="length", version="v1", runtime="r", granularity=Granularity.SEQUENCE, segments=[], sequence_score=n
        )
        row = Row(n, f"q{n}", None, ScoreItem(response=str(n)), {})
        rows.append(ScoredRow(row, {"length": score}, {"length": ScoreSource.COMPUTED}))
    return make_table(rows, ["length"])


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "scored.parquet"


def write(parts, *chunks):
    for chunk in chunks:
        start, stop = parts.plan.bounds(chunk)
        parts.write(chunk, table(start, stop), Counter(computed=stop - start))


def test_parts_in_any_order_become_the_rows_in_order(output):
    with Parts(output, PLAN) as parts:
        assert parts.missing() == [0, 1, 2]
        write(parts, 2, 0)
        assert parts.missing() == [1]
        assert parts.counts() == {"computed": 4}
    with Parts(output, PLAN) as parts:
        assert parts.missing() == [1]
        write(parts, 1)
        parts.finish(parts.counts())
    assert pq.read_table(output)["row"].to_pylist() == list(range(7))
    assert [path.name for path in output.parent.iterdir()] == ["scored.parquet"]


def test_what_was_torn_off_does_not_count(output):
    with Parts(output, PLAN) as parts:
        write(parts, 0, 1)
        (parts.folder / "part-000000002.unfinished").write_bytes(b"PAR1")
        assert parts.missing() == [2]
        write(parts, 2)
        output.with_name(".unfinished-scored.parquet").write_bytes(b"PAR1")
        parts.finish(parts.counts())
    assert pq.read_table(output).num_rows == 7


def test_a_kill_while_the_parts_are_removed_changes_nothing(output, monkeypatch):
    monkeypatch.setattr("rl_client.offline.parts.shutil.rmtree", lambda _: None)
    for _ in range(2):
        with Parts(output, PLAN) as parts:
            write(parts, *parts.missing())
            parts.finish(parts.counts())
        assert pq.read_table(output)["row"].to_pylist() == list(range(7))


def test_a_part_with_other_rows_is_not_joined(output):
    with Parts(output, PLAN) as parts:
        write(parts, 0, 2)
        parts.write(1, table(3, 5), Counter())
        with pytest.raises(DataError, match="rows 3 to 6"):
            parts.finish(parts.counts())
    assert not output.exists()
    assert parts.folder.exists()


def test_one_process_at_a_time(output):
    with Parts(output, PLAN), pytest.raises(RunFolderError, match="another process"), Parts(output, PLAN):
        pass


def test_the_lock_is_gone_with_its_process(output):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        Parts(output, PLAN).__enter__()
        os._exit(0)
    with Parts(output, PLAN) as parts:
        assert parts.missing() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"data_digest": "e" * 64}, RunFolderError, "other data_digest"),
        ({"rows": 8}, RunFolderError, "other rows"),
        ({"columns": {"id": "key", "keep": ("a",)}}, RunFolderError, "other columns"),
        ({"models": {"other": ("v1", "r")}}, RunFolderError, "other models"),
        ({"models": {"length": ("v2", "r")}}, VersionChangedError, "begun with length@v1 on r; now it is length@v2"),
    ],
)
def test_what_was_begun_goes_on_as_it_was_begun(output, change, error, told):
    with Parts(output, PLAN) as parts:
        write(parts, 0)
    changed = replace(PLAN, **change)
    with pytest.raises(error, match=told), Parts(output, changed):
        pass
    with Parts(output, changed, restart=True) as parts:
        assert parts.missing() == [0, 1, 2]


def test_the_size_of_the_parts_stays(output):
    with Parts(output, PLAN) as parts:
        write(parts, 0)
    with Parts(output, replace(PLAN, chunk_rows=5)) as parts:
        assert parts.plan.chunk_rows == 3
        assert parts.missing() == [1, 2]
