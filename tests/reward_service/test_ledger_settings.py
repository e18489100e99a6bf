import pytest
from pydantic import ValidationError

from reward_service.ledger_settings import LedgerSettings


def test_nothing_is_recorded_unless_it_is_said_where() -> None:
    settings = LedgerSettings()
    assert (settings.path, settings.url, settings.texts) == (None, None, False)


@pytest.mark.parametrize("url", ["postgresql://u:p@host:5433/db", "postgresql+psycopg:///db?host=/run/postgresql"])
def test_addresses(url: str) -> None:
    assert LedgerSettings.model_validate({"url": url}).url == url


@pytest.mark.parametrize(
    "fault",
    [
        {"url": "sqlite:///x.db"},
        {"url": "postgresql+psycopg2://host/db"},
        {"path": "x.db", "url": "postgresql://host/db"},
        {"path": "x.db", "max_age_days": 0},
        {"path": "x.db", "max_bytes": 1000},
        {"path": "x.db", "close_timeout_s": 0},
        {"path": "x.db", "rows": 1},
    ],
)
def test_nonsense_is_refused(fault: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LedgerSettings.model_validate(fault)
