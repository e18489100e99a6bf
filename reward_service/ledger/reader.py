"""What the ledger holds: scores with their items one by one, and sums over all of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select

from reward_service.ledger.database import Database
from reward_service.ledger.rows import Row, decode_segments
from reward_service.ledger.tables import JOINED, VIEW, items, minutes, scores

FETCH_ROWS = 1000
"""Rows that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which scores; all of them where nothing is given.

    Attributes:
        job: Name of the training job.
        run: Name of the run.
        first_step: Scores of no step are left out where this or the next one is given.
        last_step: This one included.
        model: Name of the model.
        version: Its version.
        since_ms: Time since 1970.
        until_ms: This one excluded.
    """

    job: str | None = None
    run: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    model: str | None = None
    version: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What rows of items joined with scores must meet."""
        wanted = (
            (self.job, items.c.client_job.__eq__),
            (self.run, items.c.run.__eq__),
            (self.first_step, items.c.step.__ge__),
            (self.last_step, items.c.step.__le__),
            (self.model, scores.c.model.__eq__),
            (self.version, scores.c.version.__eq__),
            (self.since_ms, items.c.time_ms.__ge__),
            (self.until_ms, items.c.time_ms.__lt__),
        )
        return [compare(value) for value, compare in wanted if value is not None]


class Reading:
    """The scores that meet some filters, as they are at one moment.

    Args:
        database: Where from.
        filters: Which.
    """

    def __init__(self, database: Database, filters: Filters) -> None:
        self._database = database
        self._conditions = filters.conditions()

    def count(self) -> int:
        """How many they are."""
        query = select(func.count()).select_from(JOINED).where(*self._conditions)
        with self._database.engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

    def rows(self) -> Iterator[Row]:
        """Each of them, the oldest first, in constant memory.

        Yields:
            The columns of the view `reward_ledger`, except that `scored_at` (UTC) stands for its key, `segments` is a
            list of dictionaries `start`, `end`, `score`, `label`, and for `texts` there are `prompt`, `response` and
            `fields` (None where texts were not recorded; `fields` as JSON).
        """
        order = (items.c.time_ms, items.c.writer, items.c.seq, scores.c.model)
        query: Select[Any] = VIEW.where(*self._conditions).order_by(*order)
        with self._database.engine.connect().execution_options(yield_per=FETCH_ROWS) as connection:
            for row in connection.execute(query).mappings():
                yield _shown(dict(row))


def sum_up(database: Database) -> dict[str, Any]:
    """What the ledger holds, as JSON: the whole, by model, and by job and run."""
    whole = select(*(func.coalesce(func.sum(minutes.c[name]), 0).label(name) for name in ("items", "scores", "bytes")))
    ends = select(func.min(items.c.time_ms), func.max(items.c.time_ms))
    of_model = (scores.c.model, scores.c.version, scores.c.runtime)
    mean = func.avg(scores.c.sequence_score).label("mean_score")
    by_model = select(*of_model, func.count().label("scores"), mean).group_by(*of_model).order_by(*of_model)
    of_run = (items.c.client_job, items.c.run)
    steps = (func.min(items.c.step).label("first_step"), func.max(items.c.step).label("last_step"))
    by_run = (
        select(*of_run, func.count().label("items"), *steps)
        .group_by(*of_run)
        .order_by(*(c.nulls_first() for c in of_run))
    )
    with database.engine.connect() as connection:
        # PostgreSQL's sums of whole numbers are decimals.
        told: dict[str, Any] = {name: int(value) for name, value in connection.execute(whole).mappings().one().items()}
        for name, time_ms in zip(("oldest", "newest"), connection.execute(ends).one(), strict=True):
            told[name] = None if time_ms is None else _time(time_ms).isoformat()
        told["models"] = [dict(row) for row in connection.execute(by_model).mappings()]
        told["runs"] = [dict(row) for row in connection.execute(by_run).mappings()]
    return told


def _shown(row: Row) -> Row:
    time_ms = row.pop("time_ms")
    del row["writer"], row["seq"]
    texts = row.pop("texts")
    told = {} if texts is None else json.loads(texts)
    fields = None if texts is None else json.dumps(told["fields"], ensure_ascii=False, sort_keys=True)
    return {
        "scored_at": _time(time_ms),
        **row,
        "segments": decode_segments(row["segments"]),
        "prompt": told.get("prompt"),
        "response": told.get("response"),
        "fields": fields,
    }


def _time(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)
