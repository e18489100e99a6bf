"""One chunk of rows -> scores, known ones reused and the rest asked for -> a part on disk."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reward_proto import ModelScore
from rl_client.offline.parts import Counts, Parts, Plan
from rl_client.offline.replicas import Replicas
from rl_client.offline.reuse import ReuseIndex
from rl_client.offline.rows import Columns, Row, parse_row
from rl_client.offline.scored_file import ScoredRow, ScoreSource, make_table
from rl_client.offline.sources import Source


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of one part, and what is known of each: scores by model name."""

    number: int
    rows: Sequence[Row]
    known: Sequence[dict[str, ModelScore]]


def read_chunks(
    source: Source, columns: Columns, plan: Plan, numbers: Iterable[int], index: ReuseIndex | None
) -> Iterator[Chunk]:
    """The chunks of these numbers, in order; neighbours are read in one go.

    Raises:
        DataError: If a row cannot be used.
    """
    for first, last in _runs(numbers):
        start, stop = plan.bounds(first)[0], plan.bounds(last)[1]
        records = source.read(start, stop, columns.read)
        for number in range(first, last + 1):
            begin, end = plan.bounds(number)
            # The range first: when it ends, no record of the next chunk is taken.
            numbered = zip(range(begin, end), records, strict=False)
            rows = [parse_row(place, at, record, columns) for at, (place, record) in numbered]
            known = index.find(rows, plan.models) if index else [{} for _ in rows]
            yield Chunk(number, rows, known)


class ChunkScorer:
    """Scores chunks and writes them down; safe to share between threads."""

    def __init__(self, replicas: Replicas, parts: Parts, *, batch_items: int) -> None:
        self._replicas = replicas
        self._parts = parts
        self._models = list(parts.plan.models)
        self._batch_items = batch_items

    def score(self, chunk: Chunk) -> Counts:
        """Score what is not known and write the part.

        Returns:
            How many scores came from where.

        Raises:
            RewardClientError: If the service cannot be asked; then nothing is written.
        """
        scores = [dict(known) for known in chunk.known]
        sources = [dict.fromkeys(known, ScoreSource.REUSED) for known in chunk.known]
        for names, places in self._unknown(chunk).items():
            for start in range(0, len(places), self._batch_items):
                some = places[start : start + self._batch_items]
                given = self._replicas.score([chunk.rows[place].item for place in some], names)
                for place, answers in zip(some, given, strict=True):
                    scores[place].update(answers)
                    sources[place].update({name: _source(score) for name, score in answers.items()})
        rows = [ScoredRow(*of_row) for of_row in zip(chunk.rows, scores, sources, strict=True)]
        counts: Counts = Counter(source.value for of_row in sources for source in of_row.values())
        self._parts.write(chunk.number, make_table(rows, self._models), counts)
        return counts

    def _unknown(self, chunk: Chunk) -> dict[tuple[str, ...], list[int]]:
        """Places of rows by the models whose scores they lack."""
        places = defaultdict(list)
        for place, known in enumerate(chunk.known):
            if names := tuple(name for name in self._models if name not in known):
                places[names].append(place)
        return places


def _source(score: ModelScore) -> ScoreSource:
    if score.error is not None:
        return ScoreSource.FAILED
    return ScoreSource.CACHED if score.cached else ScoreSource.COMPUTED


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last) of each unbroken run."""
    first = last = None
    for number in numbers:
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
