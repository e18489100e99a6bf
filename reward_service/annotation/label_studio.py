"""Tasks and annotations of Label Studio, in its JSON.

It counts code points, a line break as one (checked against its editor's own tests and code, release 1.23); releases
before 1.6 counted UTF-16 units. The labelling settings that go with these names are in docs/annotation.md.

Source: https://labelstud.io/guide/task_format
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reward_proto.feedback import Feedback, MissingInfo, SpanError
from reward_service.annotation.annotation import UNDECIDED, Annotation
from reward_service.annotation.exchange import (
    PREFERENCE_NAMES,
    Imported,
    by_task,
    choice_number,
    choices_of,
    imported,
    read_each,
    task_fields,
    task_of,
)
from reward_service.annotation.offsets import Offsets, read_offsets, write_offsets
from reward_service.annotation.passages import Entry, join_passages, missing_at
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

_BREAK = "\\n"
"""How its editor writes a line break in the text of a span."""


def write_label_studio(
    tasks: Iterable[Task], annotated: Sequence[tuple[Task, Kept]], counted: Offsets = Offsets.CODE_POINTS
) -> list[dict[str, Any]]:
    """Tasks with their annotations, as Label Studio imports them.

    Args:
        tasks: Every task to write; those of `annotated` need not be among them.
        annotated: What people said.
        counted: What the positions count.
    """
    found = {task.id: kept for task, kept in by_task(annotated)}
    every = {task.id: task for task in [*tasks, *(task for task, _ in annotated)]}
    return [_write_task(task, found.get(task.id, []), counted) for task in every.values()]


def _write_task(task: Task, kept: Sequence[Kept], counted: Offsets) -> dict[str, Any]:
    passages, entries = join_passages(task.passages)
    structure = [list(passage) for passage in task.passages]
    data = {**task_fields(task), "gold": task.gold, "passages": passages, "passage_sentences": structure}
    annotations = [
        {"annotator": one.annotator, "result": _results(task, one.annotation, passages, entries, counted)}
        for one in kept
    ]
    return {"data": data, "annotations": annotations}


def _results(
    task: Task, annotation: Annotation, passages: str, entries: Sequence[Entry], counted: Offsets
) -> list[dict[str, Any]]:
    response = task.responses[0]
    results: list[dict[str, Any]] = []
    for number, error in enumerate(annotation.feedback.errors):
        region = f"error-{number}"
        span = _span(response, error.start, error.end, counted)
        results.append(_result(region, "error", "response", "labels", {**span, "labels": [error.error_type]}))
        if error.explanation:
            value = {**span, "text": [error.explanation]}
            results.append(_result(region, "explanation", "response", "textarea", value))
    places = {(entry.passage_id, entry.sentence): entry for entry in entries}
    for number, missing in enumerate(annotation.feedback.missing_info):
        for sentence in missing.sentence_id:
            entry = places[missing.passage_id, sentence]
            value = {**_span(passages, entry.start, entry.end, counted), "labels": [missing.error_type]}
            results.append(_result(f"missing-{number}-{sentence}", "missing", "passages", "labels", value))
    if annotation.feedback.corrected_prediction:
        value = {"text": [annotation.feedback.corrected_prediction]}
        results.append(_result("correction", "correction", "response", "textarea", value))
    for name, answer in choices_of(annotation.preference):
        results.append(_result(name, name, "response", "choices", {"choices": [answer]}))
    return results


def _span(text: str, start: int, end: int, counted: Offsets) -> dict[str, Any]:
    first, last = write_offsets(text, start, end, counted)
    return {"start": first, "end": last, "text": text[start:end].replace("\r", _BREAK).replace("\n", _BREAK)}


def _result(region: str, name: str, of: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": region, "from_name": name, "to_name": of, "type": kind, "value": dict(value)}


def read_label_studio(content: Any, counted: Offsets = Offsets.CODE_POINTS) -> list[Imported]:
    """Read tasks with their annotations, as Label Studio exports them.

    Args:
        content: The file's content: a list of tasks.
        counted: What the positions count.

    Raises:
        ValueError: Tasks or annotations that cannot be read: each with its number, from 0.
    """
    return read_each(content, "task", lambda entry: _read_task(entry, counted))


def _read_task(entry: Mapping[str, Any], counted: Offsets) -> Imported:
    data = entry["data"]
    task = task_of(data, data.get("passage_sentences", data.get("passages")))
    annotations: dict[str, Annotation] = {}
    for made in entry.get("annotations") or []:
        if made.get("was_cancelled"):
            continue
        name = _annotator(made)
        if name in annotations:
            raise ValueError(f"has two annotations of {name}")
        annotations[name] = _annotation(task, made["result"], counted)
    return imported(task, annotations)


def _annotator(made: Mapping[str, Any]) -> str:
    by = made.get("annotator") or made.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return f"label-studio-{by}" if isinstance(by, int) else str(by or "label-studio")


def _annotation(task: Task, results: Sequence[Mapping[str, Any]], counted: Offsets) -> Annotation:
    passages, entries = join_passages(task.passages)
    explanations = {
        result["id"]: "\n".join(result["value"]["text"])
        for result in results
        if result.get("from_name") == "explanation"
    }
    errors: list[SpanError] = []
    missing: list[MissingInfo] = []
    corrected = ""
    preference: list[int | None] = list(UNDECIDED)
    for result in results:
        name, value = result.get("from_name"), result["value"]
        if name == "error":
            start, end = _read_span(task.responses[0], value, counted)
            explanation = explanations.get(result["id"], "")
            errors += [
                SpanError(error_type=label, explanation=explanation, start=start, end=end) for label in value["labels"]
            ]
        elif name == "missing":
            start, end = _read_span(passages, value, counted)
            missing += [found for label in value["labels"] for found in missing_at(entries, start, end, label)]
        elif name == "correction":
            corrected = "\n".join(value["text"])
        elif name in PREFERENCE_NAMES:
            pair, choice = choice_number(name, value["choices"][0])
            preference[pair] = choice
        elif name != "explanation":
            raise ValueError(f"has a result of {name!r}, which is no part of this task")
    feedback = Feedback(errors=errors, missing_info=missing, corrected_prediction=corrected)
    return Annotation(feedback=feedback, preference=preference)


def _read_span(text: str, value: Mapping[str, Any], counted: Offsets) -> tuple[int, int]:
    start, end = read_offsets(text, int(value["start"]), int(value["end"]), counted)
    told = value.get("text")
    if isinstance(told, str) and _plain(told) != _plain(text[start:end]):
        raise ValueError(
            f"the span [{value['start']}, {value['end']}) should be {told!r} and is {text[start:end]!r}:"
            f" are the positions not {counted.value}?"
        )
    return start, end


def _plain(text: str) -> str:
    return "".join(text.replace(_BREAK, " ").split())
