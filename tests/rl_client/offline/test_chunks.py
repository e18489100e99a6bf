from dataclasses import asdict

import httpx
import pyarrow.parquet as pq
import pytest

from reward_proto import ErrorCode, Granularity, ModelScore
from rl_client.offline.chunks import Chunk, ChunkScorer, read_chunks
from rl_client.offline.parts import Parts, Plan
from rl_client.offline.replicas import Connection, Replicas
from rl_client.offline.rows import Columns
from rl_client.offline.sources import open_source

PINS = {"good": ("aaaaaaaaaaaa", "fake-fp32"), "length": ("bbbbbbbbbbbb", "fake-fp32")}


@pytest.fixture
def source(write_rows):
    return open_source(write_rows(10))


@pytest.fixture
def plan(source):
    return Plan(source.digest, source.rows, 3, asdict(Columns()), PINS)


def test_chunks_hold_the_rows_of_their_numbers(source, plan):
    chunks = list(read_chunks(source, Columns(), plan, [0, 2, 3], None))
    assert [chunk.number for chunk in chunks] == [0, 2, 3]
    assert [[row.number for row in chunk.rows] for chunk in chunks] == [[0, 1, 2], [6, 7, 8], [9]]
    assert [row.id for row in chunks[1].rows] == ["q6", "q7", "q8"]


def test_what_is_known_is_not_asked_for(source, plan, service, tmp_path):
    known = ModelScore(
        model="length",
        version="bbbbbbbbbbbb",
        runtime="fake-fp32",
        granularity=Granularity.SEQUENCE,
        segments=[],
        sequence_score=-7.0,
    )
    (chunk,) = read_chunks(source, Columns(), plan, [1], None)
    chunk = Chunk(chunk.number, chunk.rows, [{}, {"length": known}, {}])
    service.fail_scores("good", ErrorCode.TOO_LONG, item_id="5")
    with (
        Replicas(Connection(("http://reward",), retry_for_s=0.0), service.transport) as replicas,
        Parts(tmp_path / "s.parquet", plan) as parts,
    ):
        replicas.pin(None)
        counts = ChunkScorer(replicas, parts, batch_items=2).score(chunk)
        (part,) = parts.folder.glob("part-*")
        records = pq.read_table(part).to_pylist()
    assert counts == {"computed": 4, "reused": 1, "failed": 1}
    assert [record["scores"]["length"]["sequence_score"] for record in records] == [
        float(len(row.item.response)) if row.number != 4 else -7.0 for row in chunk.rows
    ]
    assert [record["sources"] for record in records] == [
        {"good": "computed", "length": "computed"},
        {"good": "computed", "length": "reused"},
        {"good": "failed", "length": "computed"},
    ]
    assert records[2]["scores"]["good"]["error"]["code"] == "too_long"
    asked = [(len(request.items), request.models) for request in service.requests]
    assert asked == [(2, ["good@aaaaaaaaaaaa", "length@bbbbbbbbbbbb"]), (1, ["good@aaaaaaaaaaaa"])]


def test_a_score_of_the_services_cache_is_marked(source, plan, service, tmp_path):
    def answer(request):
        reply = service.transport.handle_request(request)
        return httpx.Response(reply.status_code, content=reply.content.replace(b'"cached":false', b'"cached":true'))

    (chunk,) = read_chunks(source, Columns(), plan, [0], None)
    with (
        Replicas(Connection(("http://reward",)), httpx.MockTransport(answer)) as replicas,
        Parts(tmp_path / "s.parquet", plan) as parts,
    ):
        replicas.pin(None)
        assert ChunkScorer(replicas, parts, batch_items=8).score(chunk) == {"cached": 6}
