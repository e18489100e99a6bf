"""What the web layer needs of tracing; `reward_service.tracing` has it on OpenTelemetry."""

from collections.abc import Sequence
from typing import Protocol

from reward_service.core.stages import Stage


class Span(Protocol):
    """One request under way."""

    @property
    def traceparent(self) -> str:
        """Names the span to services that are asked on its behalf."""
        ...

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
        """The request was answered.

        Args:
            method: HTTP's.
            endpoint: The route's path.
            status: HTTP's.
            error_code: The contract's, if it was an error.
            labels: Further attributes.
            stages: Become spans inside this one.
        """
        ...


class Tracer(Protocol):
    """Begins spans."""

    def begin(self, traceparent: str, tracestate: str) -> Span:
        """A request has come.

        Args:
            traceparent: The caller's span, empty if it has none.
            tracestate: What goes with it.
        """
        ...
