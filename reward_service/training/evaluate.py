"""Figures of a published version on feedback, by the scoring code that serves it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reward_proto.models import ModelKind
from reward_service.config import Batching, ModelSettings, Runtime
from reward_service.core.backend import Backend
from reward_service.domain import ItemScore
from reward_service.errors import ConfigError, StoreError
from reward_service.registry.files import read_json_object
from reward_service.registry.manifest import HeadSpec
from reward_service.registry.store import Published
from reward_service.runtimes import load as runtimes
from reward_service.training.data_files import DataFile
from reward_service.training.dataset import (
    Inputs,
    PairExample,
    SpanExample,
    build_pair_examples,
    build_span_examples,
)
from reward_service.training.feedback import Feedback, PairKind
from reward_service.training.figures import Metrics, pair_metrics, span_metrics
from reward_service.training.history import EpochFigures
from reward_service.training.labels import IGNORED, LABELS, SpanRule
from reward_service.training.scoring import score_all

RULE_FILE = "rule.json"
"""What a trained model was taught: its part of the settings, published with it."""


HISTORY_FILE = "history.json"
"""A trained model's learning curve, published with it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What feedback counts as.

    Attributes:
        span: Which error spans count, for a span model.
        pairs: Which pairs, for a sequence model.
        coverage_similarity: For `coverage` pairs.
    """

    span: SpanRule
    pairs: PairKind = "preference"
    coverage_similarity: float = 0.85


@dataclass(frozen=True, slots=True)
class Judged:
    """One head's scores of feedback.

    Attributes:
        output: The head.
        examples: N responses, or N questions with several responses each.
        scores: One a response, in order.
        metrics: See `figures.span_metrics` and `figures.pair_metrics`.
    """

    output: HeadSpec
    examples: Sequence[SpanExample] | Sequence[PairExample]
    scores: Sequence[ItemScore]
    metrics: Metrics


def published_rules(published: Published) -> dict[str, Rule] | None:
    """The rule that each head of a version was trained by; None for a version that was trained elsewhere.

    Raises:
        StoreError: Its rule.json is malformed.
    """
    path = published.path / RULE_FILE
    if not path.exists():
        return None
    content = read_json_object(path)
    try:
        of_heads = content.get("heads", {published.name: content})
        return {output.name: _rule(of_heads[output.name]) for output in published.manifest.outputs}
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: {error!r}") from error


def _rule(content: dict[str, Any]) -> Rule:
    span = SpanRule(
        frozenset(content["error_types"]), frozenset(content["ignore_error_types"]), int(content["min_error_words"])
    )
    return Rule(span, content["pairs"] or "preference", float(content["coverage_similarity"]))


def published_history(published: Published) -> list[EpochFigures]:
    """The learning curve of a version; empty for one that was trained elsewhere.

    Raises:
        StoreError: Its history.json is malformed.
    """
    path = published.path / HISTORY_FILE
    if not path.exists():
        return []
    try:
        return [EpochFigures(**epoch) for epoch in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: {error}") from error


def default_rules(published: Published, feedback: Feedback) -> dict[str, Rule]:
    """For a version that was trained elsewhere: every error type of the feedback counts; human preferences."""
    rule = Rule(SpanRule(feedback.error_types))
    return {output.name: rule for output in published.manifest.outputs}


def load_backend(published: Published, runtime: str, *, threads: int) -> Backend:
    """Load a version on the CPU in fp32.

    Args:
        published: The version.
        runtime: `torch`, `onnxruntime` or `openvino`.
        threads: Of the runtime.

    Raises:
        StoreError: Not exported, or changed since.
    """
    wanted = ModelSettings(name=published.name, runtime=Runtime(runtime))
    return runtimes.load_backend(published, wanted, Batching(threads=threads))


def evaluate(
    published: Published, backend: Backend, feedback: Feedback, rules: dict[str, Rule], heads: Sequence[str] = ()
) -> list[Judged]:
    """Score a file's responses and judge the scores.

    Args:
        published: The version.
        backend: A runtime that has loaded it.
        feedback: To judge by.
        rules: What it counts as for each head.
        heads: Judge these alone; all when empty.

    Returns:
        One for each head, in the manifest's order.

    Raises:
        ConfigError: Inputs that the model cannot take, or a head that it does not have.
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    manifest = published.manifest
    inputs = Inputs.of(manifest, published.load_tokenizer())
    names = [output.name for output in manifest.outputs]
    unknown = sorted(set(heads) - set(names))
    if unknown:
        raise ConfigError(published.name, [f"no head {name!r}; there is {', '.join(names)}" for name in unknown])
    return [
        _judge(backend, feedback, rules[output.name], inputs, published, number)
        for number, output in enumerate(manifest.outputs)
        if not heads or output.name in heads
    ]


def _judge(
    backend: Backend, feedback: Feedback, rule: Rule, inputs: Inputs, published: Published, number: int
) -> Judged:
    output, heads = published.manifest.outputs[number], published.manifest.logit_heads
    pad_id = inputs.encoder.pad_id
    if output.kind is ModelKind.TOKEN_CLASSIFICATION:
        spans = build_span_examples(feedback.span_rows(), inputs, rule.span, number)
        scores = score_all(backend, heads, [example.encoded for example in spans], pad_id)[number]
        return Judged(output, spans, scores, span_metrics(spans, scores, output.ok_label))
    pairs = build_pair_examples(feedback.pair_rows(rule.pairs, rule.coverage_similarity), inputs)
    encoded = [item for example in pairs for item in example.encoded]
    scores = score_all(backend, heads, encoded, pad_id)[number]
    return Judged(output, pairs, scores, pair_metrics(pairs, scores))


def report(
    published: Published, runtime: str, judged: Sequence[Judged], data: Sequence[DataFile], rows: int, *, flat: bool
) -> dict[str, Any]:
    """What `reward-service evaluate` writes: the figures of the one head, or of each under `heads`.

    Args:
        published: The version.
        runtime: What computed the scores.
        judged: One a head.
        data: The files.
        rows: How many they hold.
        flat: Whether one head's figures stand at the top; it must be the only one.
    """
    head = {
        "name": published.name,
        "version": published.version,
        "runtime": runtime,
        "data": [str(path) for path in data],
        "n_examples": rows,
    }
    if flat:
        (only,) = judged
        return {**head, "head": only.output.name, **_figures(only)}
    return {**head, "heads": {one.output.name: _figures(one) for one in judged}}


def score_lines(judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """Every score as an object, for `evaluate --scores`.

    Yields:
        `index` of the row in the given data, `response` among the row's, `head`, `start`, `end`, `score`, `label` (null
        for a regressor) and `truth`: `ok`, `error`, or null where nothing is marked or the mark is left out.
    """
    for one in judged:
        left = iter(one.scores)
        for example in one.examples:
            responses = example.encoded if isinstance(example, PairExample) else (example.encoded,)
            for number, _ in enumerate(responses):
                truths = example.labels.tolist() if isinstance(example, SpanExample) else [IGNORED]
                segments = next(left).segments
                for segment, truth in zip(segments, truths[: len(segments)], strict=True):
                    yield {
                        "index": example.row.index,
                        "response": number,
                        "head": one.output.name,
                        "start": segment.span.start,
                        "end": segment.span.end,
                        "score": segment.score,
                        "label": segment.label,
                        "truth": None if truth == IGNORED else LABELS[truth],
                    }


def _figures(judged: Judged) -> dict[str, Any]:
    return {"kind": judged.output.kind.value, "granularity": judged.output.granularity.value, **judged.metrics}
