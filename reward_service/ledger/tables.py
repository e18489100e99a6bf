"""The tables of the ledger. They are only ever appended to, and cut off at their old end."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    select,
)

SCHEMA_VERSION = 1

metadata = MetaData()

about = Table("reward_ledger_about", metadata, Column("version", Integer, primary_key=True, autoincrement=False))
"""One row: which release's tables these are."""


def _key() -> list[Column[int]]:
    """Names a scored item, in the order of time.

    `writer` is a random number of the process that wrote the row, `seq` counts its items: the same row has the same key
    when it is written again because nobody knows whether the first time it was committed.
    """
    names = ("time_ms", "writer", "seq")
    return [Column(name, BigInteger, primary_key=True, autoincrement=False) for name in names]


items = Table(
    "reward_ledger_items",
    metadata,
    *_key(),
    Column("request_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("client_job", Text),
    Column("run", Text),
    Column("step", BigInteger),
    Column("prompt_digest", String(64), nullable=False),
    Column("response_digest", String(64), nullable=False),
    Column("item_digest", String(64), nullable=False),
    Column("texts", Text),  # JSON {prompt, response, fields}: PostgreSQL's texts hold no NUL, JSON escapes it.
)
"""One row for each item of a request."""

scores = Table(
    "reward_ledger_scores",
    metadata,
    *_key(),
    Column("model", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("granularity", Text, nullable=False),
    Column("sequence_score", Double),
    Column("segments", Text, nullable=False),  # JSON [[start, end, score, label], ...]
    Column("truncated_tokens", Integer, nullable=False),
    Column("cached", Boolean, nullable=False),
)
"""One row for each model that gave the item a score."""

minutes = Table(
    "reward_ledger_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("items", BigInteger, nullable=False),
    Column("scores", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
"""What was recorded in each minute since 1970, about how large it is: what retention goes by."""

MS_PER_MINUTE = 60_000

KEY = ("time_ms", "writer", "seq")

JOINED = items.join(
    scores,
    (items.c.time_ms == scores.c.time_ms) & (items.c.writer == scores.c.writer) & (items.c.seq == scores.c.seq),
)
"""Each score with its item."""

VIEW_NAME = "reward_ledger"
VIEW = select(
    *(column for column in items.c),
    *(column for column in scores.c if column.name not in KEY),
).select_from(JOINED)
"""What people query: the view `reward_ledger`."""
