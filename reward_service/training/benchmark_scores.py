"""A published model's scores of a benchmark, through the code that serves it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.backend import Backend
from reward_service.core.segment import segment_text
from reward_service.domain import Encoded, Span, TextItem
from reward_service.errors import ConfigError, ServiceError
from reward_service.registry.store import Published
from reward_service.training.benchmark_files import Asked, Benchmark, PreferenceRow, StepsRow
from reward_service.training.dataset import Inputs
from reward_service.training.feedback import refuse
from reward_service.training.scoring import score_all

STEP_BREAK = "\n\n"
"""Stands between the steps of a solution."""


@dataclass(frozen=True, slots=True)
class BenchmarkScores:
    """One head's scores of a benchmark.

    Attributes:
        name: The head's; with its version, where it is compared with others.
        runtime: What computed them.
        is_probability: Whether a score is P(ok), as a classifier's.
        rows: For each row its [S] float64 scores: of the chosen responses, then of the rejected ones; or of each step.
    """

    name: str
    runtime: str
    is_probability: bool
    rows: list[NDArray[np.float64]]


def score_benchmark(published: Published, backend: Backend, benchmark: Benchmark, head: str | None) -> BenchmarkScores:
    """Score every response, or every step.

    A preference goes by the score of the whole response. Steps are the segments of a model that reads segments, and
    beginnings of the solution for one that reads it whole.

    Args:
        published: The version.
        backend: A runtime that has loaded it.
        benchmark: What to score.
        head: Which of several; the only one if None.

    Raises:
        ConfigError: No such head, or inputs that the model cannot take: each with its place.
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    manifest = published.manifest
    names = [output.name for output in manifest.outputs]
    if head is None and len(names) > 1:
        raise ConfigError(published.name, [f"has several heads: say which with --head, of {', '.join(names)}"])
    if head is not None and head not in names:
        raise ConfigError(published.name, [f"no head {head!r}; there is {', '.join(names)}"])
    number = 0 if head is None else names.index(head)
    output = manifest.outputs[number]
    inputs = Inputs.of(manifest, published.load_tokenizer())
    reads_segments = output.kind is ModelKind.TOKEN_CLASSIFICATION
    encoded, counts = _encode(benchmark, inputs, reads_segments=reads_segments)
    scores = score_all(backend, manifest.logit_heads, encoded, inputs.encoder.pad_id)[number]
    of_steps = bool(benchmark.steps) and reads_segments
    values = [[segment.score for segment in score.segments] if of_steps else [score.sequence_score] for score in scores]
    blank = [index for index, own in enumerate(values) if None in own]
    if blank:
        raise ConfigError(published.name, [f"gives no score to {len(blank)} responses: they are empty"])
    flat = np.array([value for own in values for value in own], dtype=np.float64)
    rows = np.split(flat, np.cumsum(counts)[:-1])
    reference = f"{output.name}@{published.version}"
    return BenchmarkScores(reference, backend.runtime, output.kind is not ModelKind.SEQUENCE_REGRESSION, rows)


def _encode(benchmark: Benchmark, inputs: Inputs, *, reads_segments: bool) -> tuple[list[Encoded], list[int]]:
    """The model's inputs, and how many scores each row gets."""
    encoded: list[Encoded] = []
    counts: list[int] = []
    faults: list[str] = []
    rows: list[PreferenceRow | StepsRow] = [*benchmark.preferences, *benchmark.steps]
    for row in rows:
        try:
            if isinstance(row, PreferenceRow):
                texts = (*row.chosen, *row.rejected)
                encoded += [inputs.encode(_item(row.asked, text)) for text in texts]
            elif reads_segments:
                encoded.append(_encode_steps(row, inputs))
            else:
                ends = [STEP_BREAK.join(row.steps[: number + 1]) for number in range(len(row.steps))]
                encoded += [inputs.encode(_item(row.asked, text)) for text in ends]
        except ServiceError as error:
            faults.append(f"{row.asked.place}: {error}")
        counts.append(len(row.steps) if isinstance(row, StepsRow) else len(row.chosen) + len(row.rejected))
    if faults:
        refuse(faults)
    return encoded, counts


def _item(asked: Asked, response: str) -> TextItem:
    return TextItem(asked.prompt, response, asked.fields)


def _encode_steps(row: StepsRow, inputs: Inputs) -> Encoded:
    text = STEP_BREAK.join(row.steps)
    spans = step_spans(row.steps)
    divided = [
        segment_text(text, granularity) if granularity is Granularity.SEQUENCE else spans
        for granularity in inputs.granularities
    ]
    return inputs.encoder.encode(_item(row.asked, text), divided)


def step_spans(steps: Sequence[str]) -> tuple[Span, ...]:
    """Where each step lies in the steps joined by `STEP_BREAK`, without white space around it."""
    spans: list[Span] = []
    start = 0
    for step in steps:
        left = len(step) - len(step.lstrip())
        spans.append(Span(start + left, start + len(step.rstrip())))
        start += len(step) + len(STEP_BREAK)
    return tuple(spans)
