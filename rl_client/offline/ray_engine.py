"""Bulk scoring on a Ray cluster: the same parts, scored by actors on any number of machines.

The data, the output's folder and the package must be where every machine sees them under the same path. Work that Ray
starts again finds the parts that are there and does the rest, so a lost machine costs no row.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import ray
import ray.data

from rl_client.api import RewardClientError
from rl_client.errors import TrainingError, WorkerError
from rl_client.offline.bulk import BulkResult, BulkSettings, conclude, find_made, make_plan, prepare, score_chunks
from rl_client.offline.chunks import ChunkScorer, read_chunks
from rl_client.offline.parts import Parts, Plan
from rl_client.offline.progress import RowProgress
from rl_client.offline.replicas import Replicas
from rl_client.offline.reuse import INDEX_FILE, ReuseIndex
from rl_client.offline.sources import Source, open_source
from rl_client.training.interrupt import StopSignal

CHUNKS_PER_TASK = 4
MAX_BLOCKS = 1000
ACTOR_CPUS = 0.5
"""An actor waits for the service most of the time."""


def score_on_ray(settings: BulkSettings, address: str | None = None) -> BulkResult:
    """Score every row of a file by every model, with Ray Data: one actor for each replica of the service.

    Args:
        settings: What and how.
        address: Of the cluster; one on this machine is started when None.

    Raises:
        TrainingError: As `bulk.score_file`; a `WorkerError` for what stopped an actor.
        RewardClientError: If the service cannot be asked when the work begins.
    """
    with ExitStack() as stack:
        replicas = stack.enter_context(Replicas(settings.connection))
        source = open_source(settings.data, settings.split)
        plan = make_plan(settings, source, replicas.pin(settings.models))
        if (made := find_made(settings, plan)) is not None:
            return made
        parts, index = prepare(settings, plan, stack)
        missing = parts.missing()
        todo = sum(stop - start for start, stop in map(parts.plan.bounds, missing))
        progress = stack.enter_context(RowProgress("score", done=parts.plan.rows - todo, rows=parts.plan.rows))
        stop = stack.enter_context(StopSignal())
        if missing:
            ray.init(address, include_dashboard=False, log_to_driver=False)
            stack.callback(ray.shutdown)
            for answer in _run(settings, source, parts, index is not None, missing):
                if answer["error"]:
                    raise WorkerError(f"a worker stopped: {answer['error']}")
                progress.add(int(answer["rows"]))
                if stop.received:
                    break
        return conclude(parts)


def _run(settings: BulkSettings, source: Source, parts: Parts, indexed: bool, missing: Sequence[int]) -> Any:
    tasks = [{"chunks": missing[start : start + CHUNKS_PER_TASK]} for start in range(0, len(missing), CHUNKS_PER_TASK)]
    dataset = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), MAX_BLOCKS))
    scored = dataset.map_batches(
        TaskScorer,
        fn_constructor_args=(settings, source, parts.plan, indexed),
        batch_size=1,
        batch_format="numpy",
        concurrency=len(settings.connection.urls),
        num_cpus=ACTOR_CPUS,
    )
    return scored.iter_rows()


class TaskScorer:
    """An actor that scores chunks with threads of its own.

    Args:
        settings: Of the whole work.
        source: The data, opened.
        plan: Of the parts.
        indexed: Whether there is an index of known scores beside the parts.
    """

    def __init__(self, settings: BulkSettings, source: Source, plan: Plan, indexed: bool) -> None:
        self._settings = settings
        self._source = source
        self._plan = plan
        parts = Parts(settings.output, plan)
        self._index = ReuseIndex(parts.folder / INDEX_FILE) if indexed else None
        self._replicas = Replicas(settings.connection)
        self._pinned = False
        self._scorer = ChunkScorer(self._replicas, parts, batch_items=settings.batch_items)

    def __call__(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Score the chunks of one task; what stops it is told in words, as the client's errors cannot travel."""
        numbers = [int(number) for chunks in task["chunks"] for number in np.atleast_1d(chunks)]
        rows = 0
        error = ""
        try:
            self._pin()
            chunks = read_chunks(self._source, self._settings.columns, self._plan, numbers, self._index)
            for done in score_chunks(chunks, self._scorer, self._settings.connection.concurrency):
                rows += done
        except (RewardClientError, TrainingError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return {"rows": np.array([rows]), "error": np.array([error])}

    def _pin(self) -> None:
        if not self._pinned:
            self._replicas.pin([f"{name}@{version}" for name, (version, _) in self._plan.models.items()])
            self._pinned = True
