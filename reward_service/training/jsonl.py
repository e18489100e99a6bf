"""Plain JSONL feedback: a marked response or a preference pair a line, read line by line."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reward_proto.feedback import SpanError
from reward_service.domain import TextItem
from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import PairKind, PairRow, SpanRow, refuse


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MarkedSpan(_Strict):
    """An error in a response.

    Attributes:
        start: First character, in Unicode code points.
        end: One past the last.
        type: Any name; settings say which types a model learns.
    """

    start: int
    end: int
    type: str = Field(min_length=1)


class SpanLine(_Strict):
    """A response in which errors are marked.

    Attributes:
        prompt: What `{prompt}` of a template stands for.
        fields: What other names of a template stand for.
        response: The text.
        spans: Its errors; an empty list says that it has none.
    """

    prompt: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    response: str
    spans: list[MarkedSpan]


class PairLine(_Strict):
    """Two responses to one prompt.

    Attributes:
        prompt: What `{prompt}` of a template stands for.
        fields: What other names of a template stand for.
        chosen: The better response.
        rejected: The other one.
    """

    prompt: str = ""
    fields: dict[str, str] = Field(default_factory=dict)
    chosen: str
    rejected: str


@dataclass
class JsonlFeedback:
    """Rows of both kinds, in the files' order. A span model learns from the first, a pairwise one from the second."""

    spans: list[SpanRow] = field(default_factory=list)
    pairs: list[PairRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.spans) + len(self.pairs)

    @property
    def error_types(self) -> frozenset[str]:
        """See `feedback.Feedback`."""
        return frozenset(error.error_type for row in self.spans for error in row.errors)

    def span_rows(self) -> Sequence[SpanRow]:
        """See `feedback.Feedback`."""
        return self.spans

    def pair_rows(self, kind: PairKind, similarity: float) -> Sequence[PairRow]:
        """See `feedback.Feedback`."""
        del similarity
        if kind != "preference":
            raise ConfigError("feedback", [f"pairs: {kind} needs passages and missing information, as qa_feedback has"])
        return self.pairs

    def texts(self) -> Iterator[TextItem]:
        """See `feedback.Feedback`."""
        for row in self.spans:
            yield row.item
        for pair in self.pairs:
            yield from pair.items


def read_jsonl(files: Sequence[DataFile]) -> JsonlFeedback:
    """Read files of `SpanLine` and `PairLine` objects; blank lines are skipped and are no rows.

    Raises:
        ConfigError: A file cannot be read, or lines are malformed: every fault with its file and line.
    """
    feedback = JsonlFeedback()
    faults: list[str] = []
    for file in files:
        try:
            wanted = file.rows(sum(1 for _ in _lines(file.path)))
        except (OSError, ValueError) as error:
            faults.append(f"{file.path}: {error}")
            continue
        for row, (number, raw) in enumerate(_lines(file.path)):
            if row not in wanted:
                continue
            place = f"{file.path}:{number}"
            line = _parse(raw)
            if isinstance(line, SpanLine):
                feedback.spans.append(_span_row(place, len(feedback), line))
            elif isinstance(line, PairLine):
                feedback.pairs.append(_pair_row(place, len(feedback), line))
            else:
                faults.extend(f"{place}: {fault}" for fault in line)
    if faults:
        refuse(faults)
    return feedback


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _parse(raw: bytes) -> SpanLine | PairLine | list[str]:
    """The line's content, or its faults."""
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not isinstance(content, dict):
        return [f"must be an object, not {type(content).__name__}"]
    schema: type[SpanLine | PairLine] = PairLine if {"chosen", "rejected"} & content.keys() else SpanLine
    try:
        line = schema.model_validate(content)
    except ValidationError as error:
        return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)]
    if isinstance(line, SpanLine):
        length = len(line.response)
        outside = [
            f"spans.{index}: [{span.start}, {span.end}) is empty or outside the response ({length} characters)"
            for index, span in enumerate(line.spans)
            if not 0 <= span.start < span.end <= length
        ]
        return outside or line
    return line


def _span_row(place: str, index: int, line: SpanLine) -> SpanRow:
    errors = tuple(SpanError(error_type=span.type, start=span.start, end=span.end) for span in line.spans)
    return SpanRow(place, index, TextItem(line.prompt, line.response, line.fields), errors)


def _pair_row(place: str, index: int, line: PairLine) -> PairRow:
    items = tuple(TextItem(line.prompt, text, line.fields) for text in (line.chosen, line.rejected))
    # A text does not beat itself.
    return PairRow(place, index, items, ((0, 1),) if line.chosen != line.rejected else ())
