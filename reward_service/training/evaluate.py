"""Figures of a published version on a feedback file, by the scoring code that serves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_proto.feedback import FeedbackExample
from reward_proto.models import ModelKind
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder
from reward_service.errors import StoreError
from reward_service.registry.files import read_json_object
from reward_service.registry.store import Published
from reward_service.training.dataset import build_pair_examples, build_span_examples
from reward_service.training.figures import Metrics, pair_metrics, span_metrics
from reward_service.training.labels import SpanRule
from reward_service.training.pairs import PairKind, pairs_of
from reward_service.training.scoring import score_all

RULE_FILE = "rule.json"
"""What a trained model was taught: its part of the settings, published with it."""


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


def published_rule(published: Published) -> Rule | None:
    """The rule a version was trained by; None for one that was trained elsewhere.

    Raises:
        StoreError: Its rule.json is malformed.
    """
    path = published.path / RULE_FILE
    if not path.exists():
        return None
    content = read_json_object(path)
    try:
        return Rule(
            SpanRule(
                frozenset(content["error_types"]),
                frozenset(content["ignore_error_types"]),
                int(content["min_error_words"]),
            ),
            content["pairs"] or "preference",
            float(content["coverage_similarity"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error


def default_rule(examples: Sequence[FeedbackExample]) -> Rule:
    """For a version that was trained elsewhere: every error type of the file counts; human preferences."""
    return Rule(SpanRule(frozenset(error.error_type for example in examples for error in example.feedback.errors)))


def load_backend(published: Published, runtime: str, *, threads: int) -> Backend:
    """Load a version on the CPU in fp32.

    Args:
        published: The version.
        runtime: `torch` or `onnxruntime`.
        threads: Of the runtime.

    Raises:
        StoreError: Not exported, or changed since.
    """
    if runtime == "onnxruntime":
        from reward_service.backends.onnx_backend import OnnxBackend

        return OnnxBackend(published.onnx_path(), threads=threads)
    from reward_service.backends.torch_backend import TorchBackend

    return TorchBackend(published.path, published.manifest.kind, threads=threads)


def evaluate(published: Published, backend: Backend, examples: Sequence[FeedbackExample], rule: Rule) -> Metrics:
    """Score a file's responses and judge the scores.

    Args:
        published: The version.
        backend: A runtime that has loaded it.
        examples: The feedback.
        rule: What it counts as.

    Returns:
        See `figures.span_metrics` and `figures.pair_metrics`.

    Raises:
        ConfigError: Inputs that the model cannot take.
        ModelFailedError: The runtime raised, or gave NaN or infinity.
    """
    manifest = published.manifest
    encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
    if manifest.kind is ModelKind.TOKEN_CLASSIFICATION:
        spans = build_span_examples(examples, encoder, manifest.granularity, rule.span)
        scores = score_all(backend, manifest.logit_heads, [example.encoded for example in spans], encoder.pad_id)[0]
        return span_metrics(spans, scores, manifest.ok_label)
    wins = pairs_of(examples, rule.pairs, rule.coverage_similarity)
    pairs = build_pair_examples(examples, encoder, wins)
    encoded = [item for example in pairs for item in example.encoded]
    return pair_metrics(pairs, score_all(backend, manifest.logit_heads, encoded, encoder.pad_id)[0])


def report(published: Published, runtime: str, metrics: Metrics, data: Sequence[Path], examples: int) -> dict[str, Any]:
    """What `reward-service evaluate` writes."""
    return {
        "name": published.name,
        "version": published.version,
        "runtime": runtime,
        "kind": published.manifest.kind.value,
        "granularity": published.manifest.granularity.value,
        "data": [str(path) for path in data],
        "n_examples": examples,
        **metrics,
    }
