import json

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_proto import ErrorCode
from rl_client.api.errors import OverloadedError
from rl_client.api.testing import FakeModel
from rl_client.errors import DataError, VersionChangedError
from rl_client.offline.bulk import score_file
from rl_client.offline.replicas import Connection
from rl_client.offline.rows import Columns
from rl_client.offline.scored_file import METADATA_KEY, read_scored


def run(settings, service):
    return score_file(settings, transport=service.transport)


def test_every_row_has_the_services_own_scores(settings, service):
    made = settings()
    result = run(made, service)
    assert (result.finished, result.rows, result.counts) == (True, 10, {"computed": 20})
    lines = [json.loads(line) for line in made.data.read_text().splitlines()]
    records = list(read_scored(made.output))
    assert [record["row"] for record in records] == list(range(10))
    for line, record in zip(lines, records, strict=True):
        assert {name: record[name] for name in line} == line
        assert record["scores"]["length"].sequence_score == len(line["response"])
        for segment in record["scores"]["good"].segments:
            words = line["response"][segment.start : segment.end].split()
            assert segment.score == (1.0 if "good" in words else 0.25)
    said = json.loads(pq.read_schema(made.output).metadata[METADATA_KEY])
    assert said["models"]["length"] == ["bbbbbbbbbbbb", "fake-fp32"]
    assert said["counts"] == {"computed": 20}
    assert not made.output.with_name("scored.parquet.parts").exists()


def test_a_second_time_asks_for_no_score(settings, service):
    run(settings(), service)
    first = list(read_scored(settings().output))
    asked = len(service.headers)
    result = run(settings(), service)
    assert (result.finished, result.counts, len(service.headers)) == (True, {"reused": 20}, asked)
    assert list(read_scored(settings().output)) == first


def test_an_output_of_another_name_is_made_of_the_same_scores(settings, service, tmp_path):
    run(settings(), service)
    asked = len(service.headers)
    again = settings(output=tmp_path / "b.parquet", reuse=(settings().output,))
    assert (run(again, service).counts, len(service.headers)) == ({"reused": 20}, asked)
    assert [dict(record, sources=0) for record in read_scored(again.output)] == [
        dict(record, sources=0) for record in read_scored(settings().output)
    ]


@pytest.mark.parametrize("change", [{"columns": Columns(keep=("id",))}, {"restart": True}])
def test_other_columns_and_restart_make_the_output_anew(settings, service, change):
    run(settings(), service)
    run(settings(**change), service)
    assert {record["sources"]["good"] for record in read_scored(settings().output)} == {"reused"}


def test_only_what_changed_is_computed(settings, service, write_rows):
    run(settings(), service)
    service.models["length"] = FakeModel("length", score=lambda text: 1.5, version="cccccccccccc")
    grown = settings(data=write_rows(12, "more.jsonl"))
    result = run(grown, service)
    assert result.counts == {"reused": 10, "computed": 14}
    scores = [record["scores"] for record in read_scored(grown.output)]
    assert {score["length"].sequence_score for score in scores} == {1.5}


def test_another_output_reuses_the_files_it_is_given(settings, service, tmp_path):
    run(settings(models=("length",)), service)
    again = settings(output=tmp_path / "b.parquet", reuse=(settings().output,), columns=Columns(keep=("id",)))
    assert run(again, service).counts == {"reused": 10, "computed": 10}
    assert [record["kept"] for record in read_scored(again.output)][3] == {"id": "q3"}


def test_failed_scores_stay_in_their_rows_and_are_asked_for_again(settings, service):
    service.fail_scores("good", ErrorCode.TOO_LONG, item_id="4")
    assert run(settings(), service).counts == {"computed": 19, "failed": 1}
    records = list(read_scored(settings().output))
    assert [record["row"] for record in records if record["scores"]["good"].error] == [4]
    assert run(settings(), service).counts == {"reused": 19, "computed": 1}


def test_a_service_that_goes_away_costs_what_was_under_way(settings, service):
    alone = settings(connection=Connection(("http://reward",), retry_for_s=0.0, concurrency=1), batch_items=3)
    answered = []

    def fail_third(request):
        answered.append(request)
        if len(answered) == 4:
            service.fail_next(ErrorCode.OVERLOADED)
        return service.transport.handle_request(request)

    with pytest.raises(OverloadedError):
        score_file(alone, transport=httpx.MockTransport(fail_third))
    assert not alone.output.exists()
    scored = sum(len(request.items) for request in service.requests)
    result = run(alone, service)
    assert result.counts == {"computed": 20}
    assert sum(len(request.items) for request in service.requests) <= 10 + 3
    assert scored < 10


def test_other_versions_in_mid_run_are_an_error(settings, service):
    service.fail_next(*[ErrorCode.OVERLOADED] * 99)
    with pytest.raises(OverloadedError):
        run(settings(), service)
    service._failures.clear()
    service.models["length"] = FakeModel("length", score=lambda text: 1.5, version="cccccccccccc")
    with pytest.raises(VersionChangedError, match="--restart"):
        run(settings(), service)
    assert run(settings(restart=True), service).finished


def test_a_file_that_is_not_an_output_is_not_overwritten(settings, service, tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "scored.parquet")
    with pytest.raises(DataError, match="stays as it is"):
        run(settings(), service)
    with pytest.raises(DataError, match=r"must end in \.parquet"):
        run(settings(output=tmp_path / "a.csv"), service)


def test_no_rows_and_bad_rows_are_errors(settings, service, tmp_path, write_rows):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        run(settings(data=tmp_path / "empty.jsonl"), service)
    with write_rows(10).open("a") as file:
        file.write('{"text": "no response"}\n')
    with pytest.raises(DataError, match="line 11"):
        run(settings(data=tmp_path / "data.jsonl"), service)
