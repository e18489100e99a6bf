"""QA-Feedback's own JSON files: four predictions a question, marks on the first, preferences among all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from reward_proto.feedback import FeedbackExample, FeedbackFile
from reward_service.domain import TextItem
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import PairKind, PairRow, SpanRow, refuse
from reward_service.training.pairs import pairs_of

TEMPLATE_FIELDS = ("question", "context")
"""The fields that an example gives to a template."""


@dataclass
class QaFeedback:
    """Examples in the files' order, each a row.

    Attributes:
        examples: N examples.
        places: Where each of them stands.
    """

    examples: list[FeedbackExample] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def error_types(self) -> frozenset[str]:
        """See `feedback.Feedback`."""
        return frozenset(error.error_type for example in self.examples for error in example.feedback.errors)

    def span_rows(self) -> Sequence[SpanRow]:
        """`prediction 1` of each example with its marks."""
        return [
            SpanRow(place, index, text_items(example)[0], tuple(example.feedback.errors))
            for index, (place, example) in enumerate(zip(self.places, self.examples, strict=True))
        ]

    def pair_rows(self, kind: PairKind, similarity: float) -> Sequence[PairRow]:
        """The four predictions of each example, compared by people or by coverage."""
        pairs = pairs_of(self.examples, kind, similarity)
        return [
            PairRow(place, index, tuple(text_items(example)), wins)
            for index, (place, example, wins) in enumerate(zip(self.places, self.examples, pairs, strict=True))
        ]

    def texts(self) -> Iterator[TextItem]:
        """See `feedback.Feedback`."""
        for example in self.examples:
            yield from text_items(example)


def read_qa_feedback(files: Sequence[DataFile]) -> QaFeedback:
    """Read files.

    Raises:
        ConfigError: A file is missing or is not JSON, or examples are malformed: every fault with its file and the
            example's number in it, from 0.
    """
    feedback = QaFeedback()
    faults: list[str] = []
    for file in files:
        try:
            found = FeedbackFile.validate_json(file.path.read_bytes())
            rows = file.rows(len(found))
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                place = f" example {'.'.join(map(str, fault['loc']))}:" if fault["loc"] else ""
                faults.append(f"{file.path}:{place} {fault['msg']}")
            continue
        except (OSError, ValueError) as error:
            faults.append(f"{file.path}: {error}")
            continue
        for row in rows:
            place = f"{file.path}: example {row}"
            faults.extend(f"{place}: {fault}" for fault in _faults(found[row]))
            feedback.examples.append(found[row])
            feedback.places.append(place)
    if faults:
        refuse(faults)
    return feedback


def render_context(passages: Iterable[Sequence[str]]) -> str:
    """The text of `{context}`: a line a passage, its title and sentences joined by blanks.

    A title is left out where the first sentence already begins with it on a line of its own, as QA-Feedback's often
    do. White space inside a sentence becomes one blank.
    """
    lines = []
    for passage in passages:
        title, *sentences = passage
        if sentences and sentences[0].startswith(title + "\n"):
            title = ""
        lines.append(" ".join(" ".join([title, *sentences]).split()))
    return "\n".join(lines)


def text_items(example: FeedbackExample) -> list[TextItem]:
    """The four predictions as the service would get them."""
    fields = {"question": example.question, "context": render_context(example.passages)}
    return [TextItem(prompt="", response=text, fields=fields) for text in example.predictions]


def _faults(example: FeedbackExample) -> list[str]:
    """What pydantic cannot see: offsets against the text, ids against the passages, the number of preferences."""
    faults = []
    length = len(example.prediction_1)
    for error in example.feedback.errors:
        if not 0 <= error.start < error.end <= length:
            faults.append(f"error span [{error.start}, {error.end}) is outside prediction 1 ({length} characters)")
    for number, passage in enumerate(example.passages, start=1):
        if not passage:
            faults.append(f"passage {number} is empty; its title comes first")
    for missing in example.feedback.missing_info:
        if not 1 <= missing.passage_id <= len(example.passages):
            faults.append(f"missing-info names passage {missing.passage_id} of {len(example.passages)}")
            continue
        passage = example.passages[missing.passage_id - 1]
        faults.extend(
            f"missing-info names sentence {sentence} of passage {missing.passage_id}, which has {len(passage) - 1}"
            for sentence in missing.sentence_id
            if not 0 <= sentence < len(passage)
        )
    if example.preference and (len(example.preference) != 6 or not set(example.preference) <= {0, 1, 2}):
        faults.append(f"preference must be six numbers of 0, 1, 2, got {example.preference}")
    return faults
