"""Settings and feedback to what a model is taught."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.domain import Encoded, Head
from reward_service.errors import ConfigError
from reward_service.registry.manifest import Manifest
from reward_service.training.config import ModelConfig, TrainConfig
from reward_service.training.dataset import Inputs, SpanExample, build_pair_examples, build_span_examples
from reward_service.training.evaluate import Rule
from reward_service.training.feedback import Feedback
from reward_service.training.joint import JointObjective, Lesson, build_joint_examples
from reward_service.training.labels import LABELS, SpanRule
from reward_service.training.objectives import Objective, PairObjective, SpanObjective, teaches


def build_objective(
    config: TrainConfig, draft: Manifest, inputs: Inputs, train: Feedback, dev: Feedback
) -> tuple[Objective, list[Encoded]]:
    """Encode and label the examples of a model or a network.

    Args:
        config: The settings.
        draft: Its manifest before training.
        inputs: Make what it reads.
        train: Feedback to learn from.
        dev: Feedback held out.

    Returns:
        The objective, and every training response, also of examples that teach nothing, for the calibration.

    Raises:
        ConfigError: No example teaches anything, every segment is of one class, or inputs are refused.
    """
    if draft.name in config.networks:
        return _joint_objective(config, draft, inputs, train, dev)
    settings, (head,) = config.models[draft.name], draft.logit_heads
    if settings.kind is ModelKind.TOKEN_CLASSIFICATION:
        return _span_objective(settings, head, inputs, train, dev)
    pairs, held_out = (
        build_pair_examples(part.pair_rows(settings.pairs or "preference", settings.coverage_similarity), inputs)
        for part in (train, dev)
    )
    taught = [example for example in pairs if teaches(example)]
    if not taught:
        raise ConfigError("feedback", ["no training example has a pair to learn from"])
    responses = [encoded for example in pairs for encoded in example.encoded]
    return PairObjective(taught, held_out, head, inputs.encoder.pad_id), responses


def _span_objective(
    settings: ModelConfig, head: Head, inputs: Inputs, train: Feedback, dev: Feedback
) -> tuple[Objective, list[Encoded]]:
    rule = _rule(settings).span
    spans, held_out = (build_span_examples(part.span_rows(), inputs, rule) for part in (train, dev))
    taught = [example for example in spans if teaches(example)]
    if not taught:
        raise ConfigError("feedback", ["no training example has a segment to learn from"])
    weights = _class_weights(settings, taught)
    objective = SpanObjective(taught, held_out, head, inputs.encoder.pad_id, weights)
    return objective, [example.encoded for example in spans]


def _joint_objective(
    config: TrainConfig, draft: Manifest, inputs: Inputs, train: Feedback, dev: Feedback
) -> tuple[Objective, list[Encoded]]:
    network = config.networks[draft.name]
    rules = [_rule(config.models[head.name]) for head in draft.logit_heads]
    plain = [
        Lesson(head, rule, network.weights.get(head.name, 1.0))
        for head, rule in zip(draft.logit_heads, rules, strict=True)
    ]
    examples, held_out = (build_joint_examples(part, inputs, plain) for part in (train, dev))
    taught = [example for example in examples if any(example.teaches(lesson.head.name) for lesson in plain)]
    lessons = []
    for lesson in plain:
        name = lesson.head.name
        if not any(example.teaches(name) for example in taught):
            raise ConfigError("feedback", [f"no training example teaches the head {name!r} anything"])
        spans = [example.spans[name] for example in taught if name in example.spans]
        weights = _class_weights(config.models[name], spans) if lesson.marks else None
        lessons.append(replace(lesson, class_weights=None if weights is None else tuple(weights.tolist())))
    responses = [text for example in examples for text in example.texts]
    return JointObjective(taught, held_out, lessons, inputs.encoder.pad_id), responses


def _rule(settings: ModelConfig) -> Rule:
    span = SpanRule(settings.error_types, settings.ignore_error_types, settings.min_error_words)
    return Rule(span, settings.pairs or "preference", settings.coverage_similarity)


def _class_weights(settings: ModelConfig, taught: Sequence[SpanExample]) -> NDArray[np.float32] | None:
    """See `class_weights`.

    Raises:
        ConfigError: Every segment is of one class.
    """
    counts = class_counts(taught)
    for name, count in zip(LABELS, counts, strict=True):
        if not count:
            others = f"error_types {', '.join(sorted(settings.error_types))}"
            raise ConfigError("feedback", [f"no training segment is of the class {name!r} under {others}"])
    return class_weights(settings, counts)


def class_counts(examples: Sequence[SpanExample]) -> list[int]:
    """Segments of each class by index, without ignored ones."""
    labels = np.concatenate([example.labels for example in examples])
    return [int((labels == index).sum()) for index in range(len(LABELS))]


def class_weights(settings: ModelConfig, counts: Sequence[int]) -> NDArray[np.float32] | None:
    """What a segment of each class counts, by index; None where all count the same.

    `balanced` gives N / (classes * count of the class), so that each class weighs the same in sum.
    """
    wanted = settings.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        return np.array([sum(counts) / (len(counts) * count) for count in counts], dtype=np.float32)
    return np.array([wanted[name] for name in LABELS], dtype=np.float32)
