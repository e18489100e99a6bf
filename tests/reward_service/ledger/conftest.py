"""Answers whose every value is told here, and databases for them: SQLite, and PostgreSQL where it is installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.domain import Head, ItemScore, ModelCard, ModelOutcome, ScoredSpan, Span, TextItem
from reward_service.errors import TooLongError
from reward_service.ledger.answer import Answer, Asker
from reward_service.ledger.database import Database, database_url

PACKAGE = "apt-get install -y postgresql"
USER = "postgres"
TIMEOUT_S = 60.0

MINUTE_MS = 60_000
HEAD = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")
RELEVANCE = ModelCard(
    "relevance", "3fa94c01d2be", "3f" * 32, ("latest",), HEAD, Granularity.SENTENCE, "en", "{prompt}", 99, "fake-fp32"
)
LENGTH = ModelCard(
    "length",
    "c07e55d8f419",
    "c0" * 32,
    (),
    Head(ModelKind.SEQUENCE_REGRESSION),
    Granularity.SEQUENCE,
    "en",
    "{prompt}",
    99,
    "fake-int8",
)
ASKER = Asker("request-1", "job", "run", 7)
TEXTS = TextItem("Why?", "So. Yes\x00 😀.", {"context": "ä\x00"})
SEGMENTS = (ScoredSpan(Span(0, 3), 0.1, "ok", (1.0, 2.0)), ScoredSpan(Span(4, 11), 1 / 3, "bad", (0.0,)))
SPANS = ItemScore(SEGMENTS, 0.2, truncated_tokens=5)
WHOLE = ItemScore((ScoredSpan(Span(0, 11), -1e-300, None, (-1e-300,)),), -1e-300, cached=True)


def make_answer(time_ms: int = MINUTE_MS, asker: Asker = ASKER, items: int = 1) -> Answer:
    """Of items with the same texts, each with a score of `relevance`, in two segments, and one of `length`."""
    models = (ModelOutcome(RELEVANCE, (SPANS,) * items), ModelOutcome(LENGTH, (WHOLE,) * items))
    return Answer(time_ms, asker, tuple(map(str, range(items))), (TEXTS,) * items, models)


class Telemetry:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.scores: Counter[str] = Counter()
        self.failures = 0

    def ledger_scores(self, event: str, count: int) -> None:
        self.scores[event] += count

    def ledger_failed(self) -> None:
        self.failures += 1


def find_programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; Debian puts it into no PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A cluster on a free port of loopback; not started.

    Args:
        programs: What `find_programs` found.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root.
            owner = pwd.getpwnam(USER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", USER, "-E", "UTF8", "--no-locale", "-A", "trust", "-N")

    def url(self, database: str = USER) -> str:
        """The address of one of its databases."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("start", "-l", str(self._folder / "log"), "-o", settings)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as good as a crash."""
        self._control("stop", "-m", mode)

    def remove(self) -> None:
        """Stop it if it runs, and delete it."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def execute(self, statement: str, database: str = USER) -> None:
        """Run a statement outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-t", str(int(TIMEOUT_S)), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        as_user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        # What it leaves running must not hold a pipe of this process open.
        log = self._folder / f"{program}.log"
        with log.open("a") as output:
            ended = subprocess.run(
                [str(self._programs / program), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                timeout=TIMEOUT_S,
                check=False,
                **as_user,  # type: ignore[call-overload]
            )
        assert ended.returncode == 0, log.read_text()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    programs = find_programs()
    if programs is None:
        pytest.skip(f"PostgreSQL is not installed: {PACKAGE}")
    cluster = Postgres(programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


_numbers = count()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """An empty database of one's own."""
    name = f"ledger_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be: a file that is not there, and an empty database."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def open_database() -> Iterator[Callable[..., Database]]:
    """Opens databases that are closed after the test."""
    opened: list[Database] = []

    def open_one(place: str | Path, **options: Any) -> Database:
        opened.append(Database(database_url(place), **options))
        return opened[-1]

    yield open_one
    for database in opened:
        database.close()


@pytest.fixture
def database(place: str, open_database: Callable[..., Database]) -> Database:
    """One that is prepared."""
    made = open_database(place)
    made.prepare()
    return made


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture(name="make_answer")
def _make_answer() -> Callable[..., Answer]:
    return make_answer


@pytest.fixture
def half_failed() -> Answer:
    """The first item has a score of one model, the second none, the third two of an empty response."""
    error = TooLongError("too long")
    nothing = ItemScore((), None)
    models = (ModelOutcome(RELEVANCE, (error, error, nothing)), ModelOutcome(LENGTH, (WHOLE, error, WHOLE)))
    return Answer(MINUTE_MS, ASKER, ("a", "b", "c"), (TEXTS, TEXTS, TextItem("", "")), models)
