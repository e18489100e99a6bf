"""QA-Feedback files to model inputs with labels or pairs, through the segmenter and encoder that serve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from reward_proto.feedback import FeedbackExample, FeedbackFile
from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import Encoded, TextItem
from reward_service.errors import ConfigError, ServiceError
from reward_service.training.labels import SpanRule, label_segments
from reward_service.training.pairs import Pair

TEMPLATE_FIELDS = ("question", "context")
"""The fields that a feedback file gives to a template."""


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A response of a span model.

    Attributes:
        encoded: The model's input.
        labels: [S] int64 class of each segment, or `labels.IGNORED`.
    """

    encoded: Encoded
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairExample:
    """The four predictions of one question, encoded, and which of them beat which.

    Attributes:
        encoded: The four inputs.
        pairs: (winner, loser) indices into `encoded`; may be empty.
    """

    encoded: tuple[Encoded, ...]
    pairs: tuple[Pair, ...]


def read_feedback(paths: Sequence[Path]) -> list[FeedbackExample]:
    """Read feedback files.

    Raises:
        ConfigError: A file is missing or is not JSON, or examples are malformed: every fault with its example's index.
    """
    examples: list[FeedbackExample] = []
    for path in paths:
        try:
            found = FeedbackFile.validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(str(path), [str(error)]) from error
        except ValidationError as error:
            faults = [f"example {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise ConfigError(str(path), faults) from error
        faults = [f"example {index}: {fault}" for index, example in enumerate(found) for fault in _faults(example)]
        if faults:
            raise ConfigError(str(path), faults)
        examples.extend(found)
    return examples


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


def build_span_examples(
    examples: Sequence[FeedbackExample],
    encoder: InputEncoder,
    granularity: Granularity,
    rule: SpanRule,
) -> list[SpanExample]:
    """Encode and label `prediction 1` of each example; those with no segment are left out.

    Raises:
        ConfigError: Inputs that the encoder refuses, all of them, by the example's index.
    """
    built: list[SpanExample] = []
    faults: list[str] = []
    for index, example in enumerate(examples):
        item = text_items(example)[0]
        spans = segment_text(item.response, granularity)
        if not spans:
            continue
        try:
            encoded = encoder.encode(item, (spans,))
        except ServiceError as error:
            faults.append(f"example {index}: {error}")
            continue
        built.append(SpanExample(encoded, label_segments(item.response, spans, example.feedback.errors, rule)))
    if faults:
        raise ConfigError("feedback", faults)
    return built


def build_pair_examples(
    examples: Sequence[FeedbackExample], encoder: InputEncoder, pairs: Sequence[Sequence[Pair]]
) -> list[PairExample]:
    """Encode the four predictions of each example.

    Args:
        examples: N examples.
        encoder: Of the model.
        pairs: For each of the N examples, its (winner, loser) pairs.

    Raises:
        ConfigError: Inputs that the encoder refuses, all of them, by the example's index.
    """
    built: list[PairExample] = []
    faults: list[str] = []
    for index, (example, wins) in enumerate(zip(examples, pairs, strict=True)):
        try:
            encoded = tuple(
                encoder.encode(item, (segment_text(item.response, Granularity.SEQUENCE),))
                for item in text_items(example)
            )
        except ServiceError as error:
            faults.append(f"example {index}: {error}")
            continue
        built.append(PairExample(encoded, tuple(wins)))
    if faults:
        raise ConfigError("feedback", faults)
    return built


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
