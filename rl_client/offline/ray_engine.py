"""Bulk scoring on a Ray cluster: the same parts, scored by actors on any number of machines.

The data, the output's folder and the package must be where every machine sees them under the same path. Work that Ray
starts again finds the parts that are there and does the rest, so a lost machine costs no row.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import ray
import ray.data

from rl_client.api import RewardClientError
from rl_client.errors import TrainingError, WorkerError
from rl_client.offline.bulk import BulkResult, BulkRun, BulkSettings, begin, conclude, score_chunks
from rl_client.offline.chunks import ChunkScorer, read_chunks
from rl_client.offline.parts import Parts, Plan
from rl_client.offline.replicas import Replicas
from rl_client.offline.reuse import INDEX_FILE, ReuseIndex
from rl_client.offline.sources import Source

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
        run = begin(settings, stack)
        if isinstance(run, BulkResult):
            return run
        if run.missing:
            ray.init(address, include_dashboard=False, log_to_driver=False)
            stack.callback(ray.shutdown)
            for answer in _answers(settings, run):
                if answer["error"]:
                    raise WorkerError(f"a worker stopped: {answer['error']}")
                run.progress.add(int(answer["rows"]))
                if run.stop is not None and run.stop.received:
                    break
        return conclude(run.parts)


def _answers(settings: BulkSettings, run: BulkRun) -> Any:
    starts = range(0, len(run.missing), CHUNKS_PER_TASK)
    tasks = [{"chunks": run.missing[start : start + CHUNKS_PER_TASK]} for start in starts]
    dataset = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), MAX_BLOCKS))
    scored = dataset.map_batches(
        TaskScorer,
        fn_constructor_args=(settings, run.source, run.parts.plan, run.index is not None),
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
