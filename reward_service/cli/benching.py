"""The command that puts a running service under load: `bench`."""

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_service.cli.faults import FAULTS, fail
from reward_service.cli.feedback_files import FeedbackFormat, parse_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reward_proto.score import ScoreItem
    from reward_service.bench.load import Run
    from reward_service.bench.plan import Plan

EXIT_INTERRUPTED = 130
EXIT_NOTHING_ANSWERED = 1
DEFAULT_DURATION_S = 30.0
TABLE_WIDTH = 100


def bench(
    url: Annotated[str, typer.Option(help="Where the service listens, such as http://127.0.0.1:8000.")],
    data: Annotated[list[str], typer.Option(help="Texts: FILE or FILE[START:STOP], in rows; may be given again.")],
    data_format: Annotated[FeedbackFormat, typer.Option("--format", help="Of the files.")] = FeedbackFormat.QA_FEEDBACK,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients of all jobs together.")] = 8,
    items: Annotated[int, typer.Option(min=1, help="Items of one request.")] = 16,
    jobs: Annotated[
        str | None,
        typer.Option(help="Training jobs, such as a=2,b=1: the clients are shared out among them by weight."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Models to ask for, such as a,b; all that are served otherwise.")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds; 30 unless --requests is given.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests of all clients together.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Deadline of each request, in seconds.")] = 60.0,
    unique: Annotated[bool, typer.Option("--unique", help="Make every response new, so that no cache has it.")] = False,
    key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the service's API key.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Put a running service under load and print throughput, latency, batch fill, errors and each job's share.

    Each client sends its next request when the last one is answered, and waits where the service asks it to. Ctrl-C
    ends it and prints what there is.
    """
    from rich.console import Console

    from reward_service.bench.display import tables_of
    from reward_service.bench.figures import figures_of
    from reward_service.bench.plan import Plan, parse_jobs, share_out
    from reward_service.bench.texts import read_items
    from reward_service.config import read_key

    try:
        plan = Plan(
            clients=share_out(parse_jobs(jobs) if jobs else {"": 1.0}, concurrency),
            items=items,
            models=tuple(name.strip() for name in models.split(",")) if models else None,
            duration_s=DEFAULT_DURATION_S if duration is None and requests is None else duration,
            requests=requests,
            timeout_s=timeout,
            is_unique=unique,
        )
        headers = {"Authorization": f"Bearer {read_key(key_env)}"} if key_env else {}
        run = asyncio.run(_run(url, headers, read_items(data_format.value, parse_files(data)), plan))
        figures = figures_of(run.answers, plan.clients, run.elapsed_s)
        if output is not None:
            output.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    except (*FAULTS, ValueError) as error:
        fail(error)
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(tables_of(figures))
    if run.stopped.is_set():
        raise typer.Exit(EXIT_INTERRUPTED)
    if not figures.answered:
        raise typer.Exit(EXIT_NOTHING_ANSWERED)


async def _run(url: str, headers: dict[str, str], items: "Sequence[ScoreItem]", plan: "Plan") -> "Run":
    """Check the service, then send the load behind a progress bar."""
    import httpx
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from reward_service.bench.load import Answer, Run, check_service, send_load

    run = Run()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.stopped.set)
    connect = partial(httpx.AsyncClient, base_url=url, headers=headers, verify=httpx.create_ssl_context())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with connect() as http:
        await check_service(http, plan.models)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("requests", total=plan.requests)

        def on_answer(answer: Answer) -> None:
            del answer
            progress.advance(bar)

        await send_load(connect, items, plan, run, on_answer)
    return run
