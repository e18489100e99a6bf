from prometheus_client import CollectorRegistry

from reward_service.web.ledger_metrics import LedgerMetrics


class State:
    """What a ledger shows of itself."""

    works = True
    pending_scores = 3
    pending_bytes = 4000


def test_events_are_counted_from_zero_and_the_state_is_shown() -> None:
    registry = CollectorRegistry()
    metrics, state = LedgerMetrics(registry), State()
    metrics.watch(state)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"reward_ledger_{name}", labels)

    assert [value("scores_total", event=event) for event in ("written", "dropped", "expired")] == [0, 0, 0]
    metrics.ledger_scores("written", 5)
    metrics.ledger_scores("dropped", 2)
    metrics.ledger_scores("dropped", 1)
    metrics.ledger_failed()
    assert [value("scores_total", event=event) for event in ("written", "dropped", "expired")] == [5, 3, 0]
    assert (value("up"), value("pending_scores"), value("pending_bytes"), value("errors_total")) == (1, 3, 4000, 1)
    state.works = False
    assert value("up") == 0
