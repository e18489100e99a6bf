import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reward_service.domain import ItemScore, ModelOutcome, TextItem
from reward_service.errors import ConfigError
from reward_service.ledger.answer import Asker
from reward_service.ledger_settings import LedgerSettings
from reward_service.ledgering import opened_ledger
from reward_service.registry.cards import make_cards
from reward_service.registry.store import Store
from reward_service.web.ledger_metrics import LedgerMetrics


def opened(registry: CollectorRegistry | None = None, **settings: Any) -> Any:
    made = registry or CollectorRegistry()
    return opened_ledger(LedgerSettings.model_validate(settings), lambda: LedgerMetrics(made))


def test_the_default_is_none_and_shows_no_metrics() -> None:
    registry = CollectorRegistry()
    with opened(registry) as ledger:
        assert ledger is None
        assert registry.get_sample_value("reward_ledger_up") is None


def test_what_waits_is_written_at_the_end(tmp_path: Path, tiny_store: Path) -> None:
    path, registry = tmp_path / "ledger.db", CollectorRegistry()
    (card,) = make_cards(Store(tiny_store).resolve("completeness"), "torch-fp32")
    with opened(registry, path=path) as ledger:
        for _ in range(50):
            ledger.record(Asker("r"), ["0"], [TextItem("p", "r")], [ModelOutcome(card, (ItemScore((), 0.5),))])
        assert registry.get_sample_value("reward_ledger_up") == 1
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*), min(sequence_score), max(texts) FROM reward_ledger").fetchone() == (
        50,
        0.5,
        None,
    )
    connection.close()
    assert registry.get_sample_value("reward_ledger_scores_total", {"event": "written"}) == 50


def test_a_file_that_cannot_be_and_one_that_is_not_ours_are_faults_of_the_settings(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    connection = sqlite3.connect(theirs)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    for path in (tmp_path, tmp_path / "nowhere" / "l.db", theirs):
        with pytest.raises(ConfigError, match=r"ledger\.path: "), opened(path=path):
            pass


@pytest.mark.parametrize(
    ("settings", "package", "extra"),
    [({"path": "ledger.db"}, "sqlalchemy", "ledger"), ({"url": "postgresql://h/d"}, "psycopg", "postgres")],
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("reward_service.ledger.", f"{package}."))]:
        if name != "reward_service.ledger.answer":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    fault = rf"ledger\.\w+: needs {package}, .*\[{extra}\]"
    with pytest.raises(ConfigError, match=fault), opened(**settings):
        pass
