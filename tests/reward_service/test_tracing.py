import sys
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reward_service.errors import ConfigError
from reward_service.operations_settings import Tracing
from reward_service.tracing import OtelTracer, start_tracing

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ONE = {"items": [{"response": "Yes. No.", "fields": {"question": "Why?"}}]}


class Traced:
    def __init__(self, make_service: Callable[..., Any], **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = OtelTracer(Tracing(**settings), SimpleSpanProcessor(self.exporter))
        self.service = make_service(tracer=self.tracer)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def traced(make_service: Callable[..., Any]) -> Traced:
    return Traced(make_service)


def test_a_request_carries_its_callers_trace_on(traced: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Client-Job": "night", "X-Request-Id": "r-1"}
    assert traced.service.score({**ONE, "models": ["relevance"]}, headers=headers).status_code == 200
    *stages, request = traced.spans()
    assert request.name == "POST /v1/score"
    assert request.parent is not None
    assert request.parent.span_id == int(CALLER, 16)
    assert {span.context.trace_id for span in traced.spans()} == {int(TRACE, 16)}
    attributes = dict(request.attributes or {})
    assert attributes["http.response.status_code"] == 200
    assert (attributes["reward.client_job"], attributes["reward.request_id"]) == ("night", "r-1")
    assert [span.name for span in stages] == ["tokenize", "queue", "inference"]
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert dict(span.attributes or {}) == {"model": "relevance"}
        assert request.start_time - 1e6 <= span.start_time <= span.end_time <= request.end_time + 1e6


def test_every_model_has_its_stages(traced: Traced) -> None:
    traced.service.score(ONE)
    inferred = {dict(span.attributes or {})["model"] for span in traced.spans() if span.name == "inference"}
    assert inferred == {"relevance", "factuality", "completeness"}


def test_a_trace_begins_here_without_a_callers(traced: Traced) -> None:
    traced.service.request("GET", "/v1/models", headers={"traceparent": "nonsense"})
    (span,) = traced.spans()
    assert (span.name, span.parent) == ("GET /v1/models", None)


def test_an_error_is_told(traced: Traced) -> None:
    traced.service.score({"items": []})
    (span,) = traced.spans()
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes["http.response.status_code"]) == ("invalid_request", 422)


def test_what_the_caller_does_not_sample_is_not_kept(make_service: Callable[..., Any]) -> None:
    for kept, settings, flags in [(0, {}, "00"), (1, {"sample_ratio": 0.0}, "01"), (0, {"sample_ratio": 0.0}, None)]:
        traced = Traced(make_service, **settings)
        headers = {} if flags is None else {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"}
        traced.service.request("GET", "/v1/models", headers=headers)
        assert len(traced.spans()) == kept


def test_services_asked_on_its_behalf_see_the_requests_own_span(traced: Traced) -> None:
    span = traced.tracer.begin(f"00-{TRACE}-{CALLER}-01", "")
    version, trace, own, flags = span.traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert own not in (CALLER, "0" * 16)


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/own/path"])
def test_a_collector_gets_them_over_otlp(collector: Any, path: str) -> None:
    tracer = start_tracing(Tracing(endpoint=collector.url + path, service_name="rewards"))
    assert tracer is not None
    span = tracer.begin("", "")
    span.end(method="GET", endpoint="/healthz", status=200, error_code=None, labels={}, stages=())
    tracer.close()
    ((got, request),) = collector.received
    assert got == (path if path.strip("/") else "/v1/traces")
    (resource,) = request.resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert names["service.name"] == "rewards"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["GET /healthz"]


def test_nothing_is_traced_unless_asked_for() -> None:
    assert start_tracing(Tracing()) is None


def test_a_missing_extra_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"tracing\.endpoint: needs opentelemetry.*fine-grained-rlhf\[otel\]"):
        start_tracing(Tracing(endpoint="http://127.0.0.1:4318"))
