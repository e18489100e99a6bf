"""A file of responses -> the same rows with scores: constant memory, and no row lost or doubled by a kill."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from rl_client.errors import DataError
from rl_client.offline.chunks import Chunk, ChunkScorer, read_chunks
from rl_client.offline.parts import Counts, Parts, Plan, is_made
from rl_client.offline.progress import RowProgress
from rl_client.offline.replicas import Connection, Replicas
from rl_client.offline.reuse import INDEX_FILE, Pins, ReuseIndex
from rl_client.offline.rows import Columns
from rl_client.offline.scored_file import ScoreSource, is_scored
from rl_client.offline.sources import PARQUET_SUFFIX, Source, open_source
from rl_client.training.interrupt import StopSignal

CHUNK_ROWS = 256
BATCH_ITEMS = 32


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """Settings of `rl-client score`.

    Attributes:
        data: What is scored; see `sources.open_source`.
        output: The Parquet file that is made.
        models: References as in a score request; every served model when None.
        connection: Where the service is.
        split: Which split of a `DatasetDict`.
        columns: What the data's columns mean.
        reuse: Files with scores to reuse, beside the service's cache and an earlier output.
        chunk_rows: Rows that are scored and put on disk together.
        batch_items: Responses of one request.
        restart: Throw an unfinished output away.
    """

    data: Path
    output: Path
    models: tuple[str, ...] | None
    connection: Connection
    split: str | None = None
    columns: Columns = field(default_factory=Columns)
    reuse: tuple[Path, ...] = ()
    chunk_rows: int = CHUNK_ROWS
    batch_items: int = BATCH_ITEMS
    restart: bool = False


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What came of it.

    Attributes:
        finished: Whether the output is there; False when a signal asked to stop.
        rows: Of the data.
        models: By name the version and runtime that scored.
        counts: Scores of the whole output by where they came from.
    """

    finished: bool
    rows: int
    models: Pins
    counts: Counts


@dataclass(frozen=True, slots=True)
class BulkRun:
    """Work that has begun and is not done yet.

    Attributes:
        source: The data, opened.
        replicas: Of the service, their models pinned.
        parts: What is on disk.
        index: Scores that are known; None where no file has any.
        missing: Numbers of the parts that are still to be made.
        progress: Counts rows.
        stop: Tells whether a signal asked to stop.
    """

    source: Source
    replicas: Replicas
    parts: Parts
    index: ReuseIndex | None
    missing: list[int]
    progress: RowProgress
    stop: StopSignal | None


def begin(
    settings: BulkSettings, stack: ExitStack, transport: httpx.BaseTransport | None = None
) -> BulkRun | BulkResult:
    """Open all that a run needs, closed with the stack; the result where there is nothing left to do.

    Raises:
        TrainingError: If the data, the output's folder or an earlier file cannot be used.
        RewardClientError: If the service cannot be asked.
    """
    replicas = stack.enter_context(Replicas(settings.connection, transport))
    source = open_source(settings.data, settings.split)
    plan = _make_plan(settings, source, replicas.pin(settings.models))
    if not settings.restart and is_made(settings.output, plan):
        counts = Counter({ScoreSource.REUSED.value: plan.rows * len(plan.models)})
        return BulkResult(True, plan.rows, plan.models, counts)
    parts, index = _prepare(settings, plan, stack)
    missing = parts.missing()
    todo = sum(stop - start for start, stop in map(plan.bounds, missing))
    progress = stack.enter_context(RowProgress("score", done=plan.rows - todo, rows=plan.rows))
    stop = stack.enter_context(StopSignal()) if threading.current_thread() is threading.main_thread() else None
    return BulkRun(source, replicas, parts, index, missing, progress, stop)


def score_file(settings: BulkSettings, *, transport: httpx.BaseTransport | None = None) -> BulkResult:
    """Score every row of a file by every model, on threads of this process.

    Args:
        settings: What and how.
        transport: An httpx transport in place of the network.

    Returns:
        Where the scores came from, also of parts that were finished before.

    Raises:
        TrainingError: If the data, the output's folder or an earlier file cannot be used.
        RewardClientError: If the service cannot be asked. What is scored stays; the same command goes on from there.
    """
    with ExitStack() as stack:
        run = begin(settings, stack, transport)
        if isinstance(run, BulkResult):
            return run
        chunks = read_chunks(run.source, settings.columns, run.parts.plan, run.missing, run.index)
        scorer = ChunkScorer(run.replicas, run.parts, batch_items=settings.batch_items)
        threads = settings.connection.concurrency * len(settings.connection.urls)
        for rows in score_chunks(chunks, scorer, threads, run.stop):
            run.progress.add(rows)
        return conclude(run.parts)


def _make_plan(settings: BulkSettings, source: Source, pins: Pins) -> Plan:
    """What is going to be made.

    Raises:
        DataError: If there is no row, or the output is a file of another kind.
    """
    if not source.rows:
        raise DataError(f"{settings.data} holds no rows")
    if settings.output.suffix != PARQUET_SUFFIX:
        raise DataError(f"{settings.output} must end in {PARQUET_SUFFIX}")
    if settings.output.exists() and not is_scored(settings.output):
        raise DataError(f"{settings.output} is there and was not written by `rl-client score`; it stays as it is")
    return Plan(source.digest, source.rows, settings.chunk_rows, asdict(settings.columns), dict(pins))


def _prepare(settings: BulkSettings, plan: Plan, stack: ExitStack) -> tuple[Parts, ReuseIndex | None]:
    """Open the folder of parts and the index of known scores, both closed with the stack.

    Raises:
        TrainingError: If the output's folder or an earlier file cannot be used.
    """
    parts = stack.enter_context(Parts(settings.output, plan, restart=settings.restart))
    earlier = [settings.output] if settings.output.exists() else []
    files = [*earlier, *settings.reuse]
    if not files or not parts.missing():
        return parts, None
    index = ReuseIndex.build(parts.folder / INDEX_FILE, files, plan.models)
    stack.callback(index.close)
    return parts, index


def conclude(parts: Parts) -> BulkResult:
    """Make the output if every part is there."""
    counts = parts.counts()
    finished = not parts.missing()
    if finished:
        parts.finish(counts)
    return BulkResult(finished, parts.plan.rows, parts.plan.models, counts)


def score_chunks(
    chunks: Iterator[Chunk], scorer: ChunkScorer, threads: int, stop: StopSignal | None = None
) -> Iterator[int]:
    """Score chunks side by side; what waits for a thread is bounded.

    Args:
        chunks: In the order in which they are begun.
        scorer: Scores one.
        threads: How many at a time.
        stop: Where it has received a signal no further chunk is begun.

    Returns:
        The number of rows of each chunk when it is on disk, in whatever order.
    """
    with ThreadPoolExecutor(threads) as pool:
        running: dict[Future[Counts], int] = {}
        try:
            for chunk in chunks:
                running[pool.submit(scorer.score, chunk)] = len(chunk.rows)
                while len(running) > threads:
                    yield from _take_finished(running)
                if stop is not None and stop.received:
                    running = {future: rows for future, rows in running.items() if not future.cancel()}
                    break
            while running:
                yield from _take_finished(running)
        finally:
            pool.shutdown(cancel_futures=True)


def _take_finished(running: dict[Future[Counts], int]) -> Iterator[int]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        rows = running.pop(future)
        future.result()
        yield rows
