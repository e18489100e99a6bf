"""Traces of requests, by OpenTelemetry over OTLP/HTTP: an extra, imported only where it is configured."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reward_service.core.stages import Stage
from reward_service.errors import ConfigError
from reward_service.operations_settings import Tracing

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import SpanProcessor

EXTRA = "pip install 'fine-grained-rlhf[otel]'"
TRACES_PATH = "/v1/traces"
"""Where a collector takes traces, if the endpoint names its host alone."""

EXPORT_TIMEOUT_S = 5
"""A collector that is away holds up the end of the service no longer."""

SCOPE = "reward_service"
SERVER_FAULT_STATUS = 500


def start_tracing(settings: Tracing) -> "OtelTracer | None":
    """The tracer that the settings ask for; None if they ask for none.

    Raises:
        ConfigError: The extra is not installed.
    """
    if settings.endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        fault = f"tracing.endpoint: needs {error.name}, which is not installed: {EXTRA}"
        raise ConfigError("settings", [fault]) from error
    path = urlsplit(settings.endpoint).path
    url = settings.endpoint if path.strip("/") else settings.endpoint.rstrip("/") + TRACES_PATH
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
    return OtelTracer(settings, BatchSpanProcessor(exporter))


class OtelTracer:
    """See `web.trace.Tracer`.

    Args:
        settings: The service's name, and which share of the traces it begins is kept. A caller's decision counts more.
        processor: Gets the spans.
    """

    def __init__(self, settings: Tracing, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: settings.service_name}),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(SCOPE)

    def begin(self, traceparent: str, tracestate: str) -> "OtelSpan":
        """See `web.trace.Tracer`."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent, "tracestate": tracestate} if traceparent else {}
        context = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span("request", context=context, kind=trace.SpanKind.SERVER)
        return OtelSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class OtelSpan:
    """See `web.trace.Span`."""

    def __init__(self, tracer: "trace.Tracer", span: "trace.Span") -> None:
        self._tracer = tracer
        self._span = span
        self._wall_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()

    @property
    def traceparent(self) -> str:
        """See `web.trace.Span`."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(
        self,
        *,
        method: str,
        endpoint: str,
        status: int,
        error_code: str | None,
        labels: dict[str, str],
        stages: Sequence[Stage],
    ) -> None:
        """See `web.trace.Span`. Attributes of HTTP are named as OpenTelemetry's semantic conventions do."""
        from opentelemetry import trace

        span = self._span
        span.update_name(f"{method} {endpoint}")
        span.set_attributes(
            {"http.request.method": method, "http.route": endpoint, "http.response.status_code": status, **labels}
        )
        if error_code is not None:
            span.set_attribute("error.type", error_code)
        if status >= SERVER_FAULT_STATUS:
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span)
        for stage in stages:
            part = self._tracer.start_span(
                stage.name, context=inside, start_time=self._wall_ns(stage.begin_s), attributes={"model": stage.model}
            )
            part.end(self._wall_ns(stage.end_s))
        span.end()

    def _wall_ns(self, monotonic_s: float) -> int:
        return round(monotonic_s * 1e9) + self._wall_minus_monotonic_ns
