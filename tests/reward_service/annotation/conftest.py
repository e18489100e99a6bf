"""Tasks and annotations on texts with emoji, line breaks and letters of two code points."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_proto.feedback import Feedback, MissingInfo, SpanError
from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore
from reward_service.annotation.task import Task

RESPONSE = "A 👍🏽 day.\nIt ended\r\nin e\u0301cole 🎉 two."
"""`day.` is code points 5 to 9 and UTF-16 units 7 to 11; `two.` is 32 to 36, and 35 to 39."""

PASSAGES = (("Day 🌞", "It was long.", "It ended at six.\n\nSharp."), ("", "Nobody knows."))


def span(text: str, part: str, error_type: str, explanation: str = "") -> SpanError:
    """The first place of a part, which must be there."""
    start = text.index(part)
    return SpanError(error_type=error_type, explanation=explanation, start=start, end=start + len(part))


@pytest.fixture
def task() -> Task:
    return Task.of("What day? 🗓", PASSAGES, [RESPONSE, "Another.", "A third <b>one</b>."], "gold")


@pytest.fixture
def annotation(task: Task) -> Annotation:
    """Two marks, one missing sentence of each passage, a correction, and all three pairs."""
    text = task.responses[0]
    return Annotation(
        feedback=Feedback(
            errors=[
                span(text, "day.\nIt ended\r\nin", "Irrelevant"),
                span(text, "🎉 two.", "Unverifiable", "says who?"),
            ],
            missing_info=[
                MissingInfo(error_type="Missing-Answer", passage_id=1, sentence_id=[2]),
                MissingInfo(error_type="Missing-Minor-Auxiliary", passage_id=2, sentence_id=[1]),
            ],
            corrected_prediction="A day 👍🏽.\nDone.",
        ),
        preference=[1, 0, None, 2, None, None],
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    made = AnnotationStore(tmp_path / "annotations.db")
    yield made
    made.close()
