"""Settings of running the service: keys, traces, its end."""

from pathlib import Path

from pydantic import Field

from reward_service.section import Section
from reward_service.text_rewards.settings import URL_PATTERN


class Auth(Section):
    """Who may call.

    Attributes:
        keys: File of keys, made by `reward-service keys new`. Without it everybody who reaches the port may score, and
            nobody may change what is served.
        open_metrics: Whether `/metrics` needs no key.
    """

    keys: Path | None = None
    open_metrics: bool = True


class Tracing(Section):
    """OpenTelemetry traces; the extra `otel`.

    Attributes:
        endpoint: Collector that takes OTLP over HTTP; `/v1/traces` is added to a host alone. No traces if absent.
        sample_ratio: Share of the traces that begin here which is kept, in [0, 1]; a caller's own decision counts more.
        service_name: What the service is called in the traces.
    """

    endpoint: str | None = Field(default=None, pattern=URL_PATTERN)
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    service_name: str = Field(default="reward-service", min_length=1)


class Drain(Section):
    """How the service ends after SIGTERM.

    Attributes:
        grace_s: Goes on listening at least so long, answering 503, so that load balancers notice.
        timeout_s: Admitted requests that are not answered by then are dropped.
    """

    grace_s: float = Field(default=0.5, ge=0)
    timeout_s: float = Field(default=30.0, gt=0)
