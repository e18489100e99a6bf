"""How far annotators agree: Krippendorff's alpha over words, passage sentences and pairs of responses."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nltk.metrics.agreement import AnnotationTask

from reward_proto.feedback import PREFERENCE_PAIRS, SpanError
from reward_service.annotation.annotation import Types
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

MARKED_SHARE = 0.5
"""A span marks a word of which it covers this share, so that edges that miss a letter do not count as disagreement."""

UNMARKED = ""

_WORD = re.compile(r"\S+")

Rating = tuple[str, Hashable, str]
"""(annotator, unit, value)."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Alphas over what several people finished; None where fewer than two values occur, so that it is undefined.

    Attributes:
        tasks: How many tasks were finished by two people or more.
        annotators: How many people finished one of those.
        spans: Of the types of error on each word of a response.
        categories: The same for one category of types alone.
        missing: Of the type of missing information on each passage sentence.
        preference: Of the choice in each pair of responses.
    """

    tasks: int
    annotators: int
    spans: float | None
    categories: Mapping[str, float | None]
    missing: float | None
    preference: float | None


def agreement(annotated: Iterable[tuple[Task, Kept]], types: Types) -> Agreement:
    """Compare what people say of the same tasks.

    Args:
        annotated: Finished annotations with their tasks.
        types: The categories of error types.

    Source: Krippendorff's alpha for nominal values with missing data, by NLTK (the package `krippendorff` is under the
        GPL); words as units, and which of them a span marks, are this project's.
    """
    by_task: dict[Task, list[Kept]] = defaultdict(list)
    for task, kept in annotated:
        by_task[task].append(kept)
    several = {task: kept for task, kept in by_task.items() if len(kept) > 1}
    spans = list(_word_ratings(several, types.all_errors))
    return Agreement(
        len(several),
        len({one.annotator for kept in several.values() for one in kept}),
        alpha(spans),
        {name: alpha(_word_ratings(several, names)) for name, names in types.errors.items()},
        alpha(_missing_ratings(several)),
        alpha(_preference_ratings(several)),
    )


def alpha(ratings: Iterable[Rating]) -> float | None:
    """Krippendorff's alpha for nominal values; None where units of several annotators have fewer than two values."""
    by_unit: dict[Hashable, list[Rating]] = defaultdict(list)
    for rating in ratings:
        by_unit[rating[1]].append(rating)
    numbered = [
        (annotator, number, value)
        for number, group in enumerate(group for group in by_unit.values() if len(group) > 1)
        for annotator, _, value in group
    ]
    if len({value for *_, value in numbered}) < 2:
        return None
    return float(AnnotationTask(numbered).alpha())


def word_types(text: str, errors: Sequence[SpanError], names: Sequence[str]) -> list[str]:
    """For each word of a text the types on it, sorted and joined by blanks; empty where there is none."""
    return [
        " ".join(sorted({error.error_type for error in errors if error.error_type in names and _marks(error, word)}))
        for word in _WORD.finditer(text)
    ]


def _marks(error: SpanError, word: re.Match[str]) -> bool:
    overlap = min(error.end, word.end()) - max(error.start, word.start())
    return overlap > 0 and overlap >= MARKED_SHARE * (word.end() - word.start())


def _word_ratings(several: Mapping[Task, Sequence[Kept]], names: Sequence[str]) -> Iterator[Rating]:
    for task, kept in several.items():
        for one in kept:
            values = word_types(task.responses[0], one.annotation.feedback.errors, names)
            yield from ((one.annotator, (task.id, number), value) for number, value in enumerate(values))


def _missing_ratings(several: Mapping[Task, Sequence[Kept]]) -> Iterator[Rating]:
    for task, kept in several.items():
        for one in kept:
            marked = {
                (missing.passage_id, sentence): missing.error_type
                for missing in one.annotation.feedback.missing_info
                for sentence in missing.sentence_id
            }
            for passage_id, passage in enumerate(task.passages, start=1):
                for sentence in range(len(passage)):
                    unit = (passage_id, sentence)
                    yield one.annotator, (task.id, *unit), marked.get(unit, UNMARKED)


def _preference_ratings(several: Mapping[Task, Sequence[Kept]]) -> Iterator[Rating]:
    for task, kept in several.items():
        for one in kept:
            for pair, choice in zip(PREFERENCE_PAIRS, one.annotation.preference, strict=True):
                if choice is not None:
                    yield one.annotator, (task.id, pair), str(choice)
