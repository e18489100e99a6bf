"""What waits, job by job in the order in which it came."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue must know of an item."""

    @property
    def length_tokens(self) -> int:
        """Real tokens of the item."""
        ...

    @property
    def job(self) -> str:
        """The training job that it is for."""
        ...

    def is_abandoned(self, now_s: float) -> bool:
        """Whether nobody waits for it any more."""
        ...


W = TypeVar("W", bound=Waiting)


class Lines(Generic[W]):
    """One line for each job of which something waits. Not safe to use from several threads; the queue that owns it is.

    Iterating, `len` and `in` are over the jobs.
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[W]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, job: str) -> bool:
        return job in self._lines

    def of(self, job: str) -> Sequence[W]:
        """A job's entries, at least one, as they will be until the next change."""
        return self._lines[job]

    def add(self, job: str, entries: Sequence[W]) -> None:
        """Put entries at a line's end."""
        self._lines.setdefault(job, deque()).extend(entries)

    def add_first(self, job: str, entry: W) -> None:
        """Put an entry before the others of its job."""
        self._lines.setdefault(job, deque()).appendleft(entry)

    def in_order(
        self, job: str, place: int, due: float, weight: float, now_s: float, gone: set[int]
    ) -> Iterator[tuple[float, int, int, W]]:
        """A job's items, each with what the job will have been served when it is due.

        Args:
            job: Whose.
            place: Of the job among those that wait; it tells apart what is due at once.
            due: What the job was served so far.
            weight: Of the job.
            now_s: On the clock that deadlines are told by.
            gone: Is given the ids of those that nobody waits for.
        """
        for index, entry in enumerate(self._lines[job]):
            if entry.is_abandoned(now_s):
                gone.add(id(entry))
            else:
                yield due, place, index, entry
                due += entry.length_tokens / weight

    def remove(self, job: str, gone: set[int]) -> int:
        """Take entries, by their ids, out of a job's line, which ends with its last one; returns their tokens."""
        entries = self._lines[job]
        kept: list[W] = []
        tokens = left = 0
        while left < len(gone):
            entry = entries.popleft()
            if id(entry) in gone:
                left += 1
                tokens += entry.length_tokens
            else:
                kept.append(entry)
        entries.extendleft(reversed(kept))
        if not entries:
            del self._lines[job]
        return tokens
