import httpx
import pytest

from reward_proto import ErrorCode, ScoreItem
from rl_client.api import ApiConnectionError
from rl_client.api.errors import OverloadedError, UnknownModelError
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import VersionChangedError
from rl_client.offline.replicas import Connection, Replicas

ITEMS = [ScoreItem(id=str(n), response="r" * n) for n in range(5)]


@pytest.fixture
def connect():
    """Replicas of the URLs `http://a`, `http://b`, ... each answered by a service of its own."""
    opened = []

    def make(*services, **settings):
        hosts = [chr(ord("a") + n) for n in range(len(services))]
        by_host = dict(zip(hosts, services, strict=True))
        transport = httpx.MockTransport(lambda request: by_host[request.url.host].transport.handle_request(request))
        connection = Connection(tuple(f"http://{host}" for host in hosts), **{"retry_for_s": 0.0, **settings})
        opened.append(Replicas(connection, transport))
        return opened[-1]

    yield make
    for replicas in opened:
        replicas.__exit__(None, None, None)


def values(scores):
    return [{name: one.error.code if one.error else one.sequence_score for name, one in of.items()} for of in scores]


def make(version="bbbbbbbbbbbb"):
    return FakeRewardService([FakeModel("length", score=lambda text: float(len(text)), version=version)])


def test_the_scores_of_the_pinned_models_in_order(connect, service):
    replicas = connect(service)
    assert replicas.pin(None) == {"good": ("aaaaaaaaaaaa", "fake-fp32"), "length": ("bbbbbbbbbbbb", "fake-fp32")}
    assert values(replicas.score(ITEMS, ["length"])) == [{"length": float(n)} for n in range(5)]
    assert service.requests[-1].models == ["length@bbbbbbbbbbbb"]


def test_replicas_must_serve_the_same(connect):
    with pytest.raises(VersionChangedError, match="different models"):
        connect(make(), make("cccccccccccc")).pin(None)


def test_a_replica_that_is_gone_is_left_out(connect):
    gone, there = make(), make()
    replicas = connect(gone, there, retry_for_s=0.5)
    replicas.pin(None)
    gone.fail_next(*[httpx.ConnectError("gone")] * 50)
    for _ in range(5):
        assert values(replicas.score(ITEMS[3:4], ["length"])) == [{"length": 3.0}]
    assert len(gone.headers) < 50


def test_work_goes_to_the_replica_with_least_of_it(connect):
    asked = []
    one, other = make(), make()
    replicas = connect(one, other)
    replicas.pin(None)

    def ask_within(_):
        """While the first request is with one replica, the second goes to the other."""
        if not asked:
            asked.append(True)
            replicas.score(ITEMS[:1], ["length"])
        return 0.0

    for service in (one, other):
        service.models["length"] = FakeModel("length", score=ask_within, version="bbbbbbbbbbbb")
    # The fake answers one request at a time, so the nested one would wait forever at the same replica.
    replicas.score(ITEMS[:1], ["length"])
    assert len(one.requests) == len(other.requests) == 1


def test_without_any_replica_the_failure_is_raised(connect):
    services = make(), make()
    replicas = connect(*services)
    replicas.pin(None)
    for service in services:
        service.fail_next(*[httpx.ConnectError("gone")] * 9)
    with pytest.raises(ApiConnectionError):
        replicas.score(ITEMS, ["length"])


def test_an_error_of_every_score_is_each_rows_error(connect, service):
    replicas = connect(service)
    replicas.pin(None)
    service.fail_next(ErrorCode.TOO_LONG)
    assert values(replicas.score(ITEMS[:2], ["good", "length"])) == [{"good": "too_long", "length": "too_long"}] * 2
    assert len(service.headers) == 1


def test_a_poisoned_item_is_found_and_the_others_scored(connect):
    def fails_on_three(text):
        if len(text) == 3:
            raise RuntimeError
        return float(len(text))

    def answer(request):
        try:
            return fake.transport.handle_request(request)
        except RuntimeError:
            return httpx.Response(500, json=BODY)

    fake = FakeRewardService([FakeModel("length", score=fails_on_three, version="bbbbbbbbbbbb")])
    error = {"code": "internal", "message": "boom", "retryable": True, "request_id": "x", "details": {}}
    BODY = {"error": error}
    replicas = Replicas(Connection(("http://a",), retry_for_s=0.0), httpx.MockTransport(answer))
    replicas.pin(None)
    scores = replicas.score(ITEMS, ["length"])
    assert values(scores) == [{"length": value} for value in (0.0, 1.0, 2.0, "internal", 4.0)]
    failed = scores[3]["length"]
    assert failed.error is not None
    assert (failed.error.message, failed.version, failed.segments) == ("boom", "bbbbbbbbbbbb", None)


@pytest.mark.parametrize(
    ("code", "error"), [(ErrorCode.UNKNOWN_MODEL, UnknownModelError), (ErrorCode.OVERLOADED, OverloadedError)]
)
def test_what_is_no_fault_of_the_items_stops(connect, service, code, error):
    replicas = connect(service)
    replicas.pin(None)
    service.fail_next(code)
    with pytest.raises(error):
        replicas.score(ITEMS, ["length"])
