"""A manifest for a directory that some other program trained: what its config.json says, and what the caller says."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.core.response_template import RESPONSE_FIELD
from reward_service.core.segmenter_version import segmenter_version
from reward_service.core.template import PROMPT_FIELD, template_fields
from reward_service.domain import Pooling, Readout
from reward_service.errors import StoreError
from reward_service.registry.architecture import (
    are_named,
    class_labels,
    default_readout,
    has_independent_classes,
    position_limit,
    read_config,
)
from reward_service.registry.files import CONFIG_FILE, check_model_directory
from reward_service.registry.manifest import Manifest, Scoring, SegmenterSpec
from reward_service.registry.weights import find_head

DEFAULT_MAX_TOKENS = 512
"""Longest input where neither the caller nor config.json states one."""

DEFAULT_FIELDS = ("question", "context")
"""The fields, besides the prompt, that callers are taken to send."""

OK_LABELS = ("ok", "no_error", "no-error", "no error", "o", "good", "correct")
"""Class names, in lower case, that are taken for "no error" when the caller names none."""

ERROR_LABELS = ("toxic", "toxicity", "error")
"""Names, in lower case, of the class that is taken for the error when several may hold and the caller names none."""

NO_ERROR = "ok"
"""What a segment is called in which no error was found, where that is no class and the caller does not name it."""

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def describe(
    directory: Path,
    *,
    name: str,
    kind: ModelKind,
    granularity: Granularity,
    template: str,
    fields: Collection[str] = DEFAULT_FIELDS,
    labels: tuple[str, ...] = (),
    ok_label: str | None = None,
    error_labels: tuple[str, ...] = (),
    language: str = "en",
    readout: Readout | None = None,
    pooling: Pooling = Pooling.SEPARATOR,
    scoring: Scoring = Scoring.DIRECT,
    max_tokens: int | None = None,
    cut_field: str | None = None,
) -> Manifest:
    """Write a manifest for a Hugging Face directory. Whether its parts fit each other is checked at publishing.

    Args:
        directory: config.json, model.safetensors, tokenizer.json.
        name: The model's name in the store.
        kind: What its head puts out.
        granularity: What its segments are.
        template: The input's prefix.
        fields: What callers send besides the prompt.
        labels: Class names by index, for a config.json that has none; those of config.json when absent.
        ok_label: The class that means "no error"; found among the usual names, or else the last class, when absent.
            Where classes do not exclude each other, a name for none of `error_labels`.
        error_labels: The classes that are errors, where classes do not exclude each other; found among the usual names
            when absent.
        language: The segmenter's, an ISO 639 code.
        readout: On which side of segments separators stand; what the architecture allows when absent.
        pooling: What of a segment is read.
        scoring: How a segment's score comes out of the network's.
        max_tokens: Longest input; what the model's positions allow when absent.
        cut_field: The field that may be cut to fit.

    Raises:
        StoreError: The directory is refused, or what the caller says is no manifest.
    """
    check_model_directory(directory)
    config = read_config(directory)
    names = _labels(directory, config, labels) if kind.is_classifier else labels
    if kind.is_classifier and has_independent_classes(config) and not error_labels:
        error_labels = _usual_error(directory, names)
    try:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError(f"language {language!r} is no ISO 639 code, such as en or de")
        check_fields(template, fields)
        return Manifest(
            name=name,
            kind=kind,
            granularity=granularity,
            template=template,
            labels=names,
            ok_label=ok_label or _default_ok_label(kind, names, error_labels),
            error_labels=error_labels,
            max_tokens=max_tokens or position_limit(config) or DEFAULT_MAX_TOKENS,
            cut_field=cut_field,
            readout=default_readout(config) if readout is None else readout,
            pooling=pooling,
            scoring=scoring,
            segmenter=SegmenterSpec(version=segmenter_version(language), language=language),
        )
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors())
        raise StoreError(f"{directory}: {faults}") from error
    except ValueError as error:
        raise StoreError(f"{directory}: {error}") from error


def check_fields(template: str, fields: Collection[str]) -> None:
    """Refuse a template that names what nobody sends.

    Raises:
        ValueError: It does, or it is malformed.
    """
    sent = [PROMPT_FIELD, *fields]
    named = template_fields(template)
    unsent = sorted(named - {*sent, RESPONSE_FIELD})
    if unsent:
        raise ValueError(
            f"template {template!r} needs {', '.join(unsent)}, which nobody sends: callers send {', '.join(sent)} (say "
            "--fields where they send others)"
        )


def find_ok_label(labels: tuple[str, ...]) -> str:
    """The label that means "no error" by its name, or else the last one."""
    return next((label for label in labels if label.lower() in OK_LABELS), labels[-1])


def _default_ok_label(kind: ModelKind, labels: tuple[str, ...], error_labels: tuple[str, ...]) -> str:
    if not kind.is_classifier:
        return ""
    return NO_ERROR if error_labels else find_ok_label(labels)


def _usual_error(directory: Path, labels: tuple[str, ...]) -> tuple[str, ...]:
    for usual in ERROR_LABELS:
        found = tuple(label for label in labels if label.lower() == usual)
        if found:
            return found[:1]
    raise StoreError(
        f"{directory / CONFIG_FILE}: several of its classes may hold at once, and none is called as errors are; say "
        f"which are errors (--error-label): {', '.join(labels)}"
    )


def _labels(directory: Path, config: dict[str, Any], given: tuple[str, ...]) -> tuple[str, ...]:
    """The caller's names, or else those of config.json, or else a number for each row of the head."""
    if given:
        return given
    try:
        names = class_labels(config)
    except ValueError as error:
        raise StoreError(f"{directory / CONFIG_FILE}: {error}") from error
    if are_named(names):
        return names
    return tuple(f"LABEL_{index}" for index in range(find_head(directory).shape[0]))
