"""Prometheus metrics of the reward ledger."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from reward_service.ledger.answer import LedgerState

EVENTS = ("written", "dropped", "expired")


class LedgerMetrics:
    """Counts what the ledger tells it; its `LedgerTelemetry`.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._scores = Counter(
            "reward_ledger_scores_total", "What became of scores to be recorded", ["event"], registry=registry
        )
        for event in EVENTS:
            self._scores.labels(event)  # From 0 on, so that the first drop is an increase.
        self._errors = Counter("reward_ledger_errors_total", "Failures of the ledger's database", registry=registry)
        self._up = Gauge(
            "reward_ledger_up", "1 while scores are recorded, 0 while the database fails", registry=registry
        )
        self._pending_scores = Gauge(
            "reward_ledger_pending_scores", "Scores that wait to be recorded", registry=registry
        )
        self._pending_bytes = Gauge("reward_ledger_pending_bytes", "What they take in memory", registry=registry)

    def watch(self, ledger: LedgerState) -> None:
        """Show what waits in a ledger, and whether it works."""
        self._up.set_function(lambda: ledger.works)
        self._pending_scores.set_function(lambda: ledger.pending_scores)
        self._pending_bytes.set_function(lambda: ledger.pending_bytes)

    def ledger_scores(self, event: str, count: int) -> None:
        """See `ledger.answer.LedgerTelemetry`."""
        if count:
            self._scores.labels(event).inc(count)

    def ledger_failed(self) -> None:
        """See `ledger.answer.LedgerTelemetry`."""
        self._errors.inc()
