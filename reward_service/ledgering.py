"""Settings of the ledger -> the ledger. What it needs is imported only where it is switched on: an extra."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from reward_service.errors import ConfigError
from reward_service.ledger.answer import Ledger, LedgerState, LedgerTelemetry
from reward_service.ledger_settings import LedgerSettings

MS_PER_DAY = 24 * 3600 * 1000


class Watcher(LedgerTelemetry, Protocol):
    """Counts, and shows what waits."""

    def watch(self, ledger: LedgerState) -> None:
        """Show what waits in a ledger, and whether it works."""
        ...


@contextmanager
def opened_ledger(settings: LedgerSettings, make_metrics: Callable[[], Watcher]) -> Iterator[Ledger | None]:
    """The ledger for as long as the service runs; None where the settings name none.

    Args:
        settings: Where it is.
        make_metrics: Makes what counts, if there is a ledger.

    Raises:
        ConfigError: A package is missing, the file cannot be there, or the database is somebody else's.
    """
    place = settings.path or settings.url
    if place is None:
        yield None
        return
    key = "path" if settings.path else "url"
    if settings.path is not None and (settings.path.is_dir() or not settings.path.parent.is_dir()):
        raise ConfigError("settings", [f"ledger.path: {settings.path}: no file can be there"])
    try:
        from reward_service.ledger.database import Database, ForeignDatabaseError, database_url
        from reward_service.ledger.retention import Retention
        from reward_service.ledger.writer import LedgerWriter

        database = Database(database_url(place))
    except ImportError as error:
        extra = "ledger" if settings.path else "postgres"
        fault = f"ledger.{key}: needs {error.name}, which is not installed: pip install 'fine-grained-rlhf[{extra}]'"
        raise ConfigError("settings", [fault]) from error
    max_age_ms = None if settings.max_age_days is None else round(settings.max_age_days * MS_PER_DAY)
    metrics = make_metrics()
    try:
        writer = LedgerWriter(
            database,
            Retention(max_age_ms, settings.max_bytes),
            metrics,
            texts=settings.texts,
            max_pending_bytes=settings.max_pending_bytes,
        )
    except ForeignDatabaseError as error:
        raise ConfigError("settings", [f"ledger.{key}: {error}"]) from error
    metrics.watch(writer)
    try:
        yield writer
    finally:
        writer.close(settings.close_timeout_s)
