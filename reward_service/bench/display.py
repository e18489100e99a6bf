"""Figures of a load as tables."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table

from reward_service.bench.figures import Figures

NO_JOB = "(no job)"
NOTHING = "-"

CACHED = "Scores came from the service's cache. With --unique the models compute every one."


def tables_of(figures: Figures) -> RenderableType:
    """The whole, then each job where there are several, then errors where there are any."""
    tables = [_whole(figures)]
    if len(figures.jobs) > 1:
        tables.append(_jobs(figures))
    if figures.request_errors or figures.score_errors:
        tables.append(_errors(figures))
    return Group(*tables)


def _whole(figures: Figures) -> Table:
    table = Table(
        show_header=False, title=f"{figures.answered} of {figures.requests} requests in {figures.duration_s:.1f} s"
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("items/s", f"{figures.items_per_s:,.1f}")
    table.add_row("tokens/s, real", f"{figures.tokens_per_s:,.0f}")
    table.add_row("tokens/s, with padding", f"{figures.padded_tokens_per_s:,.0f}")
    table.add_row("batch fill", _share(figures.batch_fill))
    table.add_row("padding", _share(figures.padding_share))
    table.add_row("cached scores", _share(figures.cached / figures.scores if figures.scores else None))
    if figures.cached:
        table.caption = CACHED
    for name, value in figures.latency_ms.items():
        table.add_row(f"latency {name}", f"{value:,.1f} ms")
    return table


def _jobs(figures: Figures) -> Table:
    table = Table(title="Jobs")
    for name in ("job", "clients", "requests", "items", "share", "p50 ms", "p99 ms", "errors"):
        table.add_column(name, justify="left" if name == "job" else "right", no_wrap=True)
    for name, job in figures.jobs.items():
        table.add_row(
            name or NO_JOB,
            str(job.clients),
            str(job.requests),
            str(job.items),
            _share(job.share),
            _ms(job.latency_ms, "p50"),
            _ms(job.latency_ms, "p99"),
            str(sum(job.errors.values())),
        )
    return table


def _errors(figures: Figures) -> Table:
    table = Table("code", "of", title="Errors")
    table.add_column("number", justify="right")
    for kind, errors in (("requests", figures.request_errors), ("scores", figures.score_errors)):
        for code, number in errors.items():
            table.add_row(code, kind, str(number))
    return table


def _share(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.1%}"


def _ms(latency_ms: Mapping[str, float], name: str) -> str:
    return f"{latency_ms[name]:,.1f}" if name in latency_ms else NOTHING
