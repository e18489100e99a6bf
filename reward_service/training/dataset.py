"""Feedback to model inputs with labels or pairs, through the segmenter and encoder that serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reward_proto.score import Granularity
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import Encoded, TextItem
from reward_service.errors import ServiceError
from reward_service.registry.manifest import Manifest
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import Feedback, FeedbackFormat, PairRow, SpanRow, refuse
from reward_service.training.jsonl import read_jsonl
from reward_service.training.labels import SpanRule, label_segments
from reward_service.training.qa_feedback import read_qa_feedback


@dataclass(frozen=True, slots=True)
class Inputs:
    """What makes a model's input of a text.

    Attributes:
        encoder: Of the model.
        granularities: What the segments of each of its heads are.
        language: The segmenter's.
    """

    encoder: InputEncoder
    granularities: tuple[Granularity, ...]
    language: str = "en"

    @classmethod
    def of(cls, manifest: Manifest, tokenizer: Tokenizer) -> Self:
        """Those of a published model."""
        granularities = tuple(output.granularity for output in manifest.outputs)
        return cls(InputEncoder(tokenizer, manifest.input_spec), granularities, manifest.segmenter.language)

    def encode(self, item: TextItem) -> Encoded:
        """Segment and encode a text.

        Raises:
            ServiceError: As `InputEncoder.encode` does.
        """
        spans = [segment_text(item.response, granularity, self.language) for granularity in self.granularities]
        return self.encoder.encode(item, spans)


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A response of a span model.

    Attributes:
        row: Where it is from.
        encoded: The model's input.
        labels: [S] int64 class of each segment, or `labels.IGNORED`.
    """

    row: SpanRow
    encoded: Encoded
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairExample:
    """The responses to one prompt, encoded, and which of them beat which.

    Attributes:
        row: Where they are from.
        encoded: One input a response.
    """

    row: PairRow
    encoded: tuple[Encoded, ...]


def read_feedback(data_format: FeedbackFormat, files: Sequence[DataFile]) -> Feedback:
    """Read feedback files.

    Raises:
        ConfigError: Files that cannot be read or are malformed; every fault with its place.
    """
    return read_qa_feedback(files) if data_format == "qa_feedback" else read_jsonl(files)


def build_span_examples(rows: Sequence[SpanRow], inputs: Inputs, rule: SpanRule, head: int = 0) -> list[SpanExample]:
    """Encode and label responses; those with no segment are left out.

    Args:
        rows: Marked responses.
        inputs: Of the model.
        rule: Which marks count.
        head: Number of the head whose segments are labelled.

    Raises:
        ConfigError: Inputs that the encoder refuses, such as for a field that the template needs: all of them, each
            with its place.
    """
    built: list[SpanExample] = []
    faults: list[str] = []
    for row in rows:
        if not row.item.response.strip():
            continue
        try:
            encoded = inputs.encode(row.item)
        except ServiceError as error:
            faults.append(f"{row.place}: {error}")
            continue
        labels = label_segments(row.item.response, encoded.reads[head].spans, row.errors, rule)
        built.append(SpanExample(row, encoded, labels))
    if faults:
        refuse(faults)
    return built


def build_pair_examples(rows: Sequence[PairRow], inputs: Inputs) -> list[PairExample]:
    """Encode the responses of each row.

    Raises:
        ConfigError: As `build_span_examples` does.
    """
    built: list[PairExample] = []
    faults: list[str] = []
    for row in rows:
        try:
            built.append(PairExample(row, tuple(inputs.encode(item) for item in row.items)))
        except ServiceError as error:
            faults.append(f"{row.place}: {error}")
    if faults:
        refuse(faults)
    return built
