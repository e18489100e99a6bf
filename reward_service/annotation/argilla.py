"""Records of Argilla, as its `dataset.records.to_json` writes and `from_json` reads them.

Its page counts UTF-16 units (`SpanComponent`; its issue 5729 is closed without a change), whatever its Python package
says. It has no place for explanations of single spans.

Source: https://docs.argilla.io/latest/reference/argilla/records/records/, release 2.8.
"""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reward_proto.feedback import Feedback, MissingInfo, SpanError
from reward_service.annotation.annotation import UNDECIDED, Annotation
from reward_service.annotation.exchange import (
    NAMESPACE,
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
from reward_service.annotation.passages import join_passages, missing_at
from reward_service.annotation.store import Kept
from reward_service.annotation.task import Task

SENTENCES = "passage_sentences"
GOLD = "gold"
NAMES = "annotators"
"""Metadata: the passages with their sentences, the reference answer and the annotators' names, each as JSON text."""


def write_argilla(
    tasks: Iterable[Task], annotated: Sequence[tuple[Task, Kept]], counted: Offsets = Offsets.UTF16
) -> list[dict[str, Any]]:
    """Records with responses, one a task.

    Args:
        tasks: Every task to write; those of `annotated` need not be among them.
        annotated: What people said.
        counted: What the positions count.
    """
    found = {task.id: kept for task, kept in by_task(annotated)}
    every = {task.id: task for task in [*tasks, *(task for task, _ in annotated)]}
    return [_write_record(task, found.get(task.id, []), counted) for task in every.values()]


def _write_record(task: Task, kept: Sequence[Kept], counted: Offsets) -> dict[str, Any]:
    passages, _ = join_passages(task.passages)
    responses: dict[str, list[dict[str, Any]]] = defaultdict(list)
    names = {}
    for one in kept:
        user_id = str(uuid.uuid5(NAMESPACE, one.annotator))
        names[user_id] = one.annotator
        for question, value in _answers(task, one.annotation, counted).items():
            responses[question].append({"value": value, "user_id": user_id})
    metadata = {SENTENCES: json.dumps(task.passages, ensure_ascii=False), GOLD: task.gold}
    if names:
        metadata[NAMES] = json.dumps(names, ensure_ascii=False)
    return {
        "id": task.id,
        "fields": {**task_fields(task), "passages": passages},
        "metadata": metadata,
        "suggestions": {},
        "responses": dict(responses),
        "vectors": {},
        "status": "completed" if kept else "pending",
        "_server_id": None,
    }


def _answers(task: Task, annotation: Annotation, counted: Offsets) -> dict[str, Any]:
    passages, entries = join_passages(task.passages)
    places = {(entry.passage_id, entry.sentence): entry for entry in entries}
    feedback = annotation.feedback
    answers: dict[str, Any] = {
        "error": [
            _span(task.responses[0], error.error_type, error.start, error.end, counted) for error in feedback.errors
        ],
        "missing": [
            _span(passages, missing.error_type, entry.start, entry.end, counted)
            for missing in feedback.missing_info
            for entry in (places[missing.passage_id, sentence] for sentence in missing.sentence_id)
        ],
    }
    if feedback.corrected_prediction:
        answers["correction"] = feedback.corrected_prediction
    return {**answers, **dict(choices_of(annotation.preference))}


def _span(text: str, label: str, start: int, end: int, counted: Offsets) -> dict[str, Any]:
    first, last = write_offsets(text, start, end, counted)
    return {"label": label, "start": first, "end": last}


def read_argilla(content: Any, counted: Offsets = Offsets.UTF16) -> list[Imported]:
    """Read records with their responses.

    Args:
        content: The file's content: a list of records.
        counted: What the positions count.

    Raises:
        ValueError: Records or responses that cannot be read: each with its number, from 0.
    """
    return read_each(content, "record", lambda entry: _read_record(entry, counted))


def _read_record(record: Mapping[str, Any], counted: Offsets) -> Imported:
    fields, metadata = record["fields"], record.get("metadata") or {}
    passages = json.loads(metadata[SENTENCES]) if SENTENCES in metadata else fields.get("passages")
    task = task_of({**fields, GOLD: metadata.get(GOLD, "")}, passages)
    names = json.loads(metadata.get(NAMES, "{}"))
    answers: dict[str, dict[str, Any]] = defaultdict(dict)
    for question, responses in (record.get("responses") or {}).items():
        for response in responses:
            user_id = str(response["user_id"])
            answers[names.get(user_id, f"argilla-{user_id}")][question] = response["value"]
    return imported(task, {name: _annotation(task, given, counted) for name, given in answers.items()})


def _annotation(task: Task, answers: Mapping[str, Any], counted: Offsets) -> Annotation:
    passages, entries = join_passages(task.passages)
    errors: list[SpanError] = []
    missing: list[MissingInfo] = []
    preference: list[int | None] = list(UNDECIDED)
    for question, value in answers.items():
        if value is None:
            continue
        if question == "error":
            for span in value:
                start, end = read_offsets(task.responses[0], int(span["start"]), int(span["end"]), counted)
                errors.append(SpanError(error_type=span["label"], start=start, end=end))
        elif question == "missing":
            for span in value:
                start, end = read_offsets(passages, int(span["start"]), int(span["end"]), counted)
                missing += missing_at(entries, start, end, span["label"])
        elif question in PREFERENCE_NAMES:
            pair, choice = choice_number(question, value)
            preference[pair] = choice
        elif question != "correction":
            raise ValueError(f"has an answer to {question!r}, which is no part of this task")
    corrected = str(answers.get("correction") or "")
    feedback = Feedback(errors=errors, missing_info=missing, corrected_prediction=corrected)
    return Annotation(feedback=feedback, preference=preference)
