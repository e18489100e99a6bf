"""Feedback divided into parts that share no question, at random or in its own order."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reward_service.errors import ConfigError
from reward_service.training.data_files import DataFile
from reward_service.training.feedback import FeedbackFormat
from reward_service.training.jsonl import read_jsonl
from reward_service.training.qa_feedback import read_qa_feedback

REST = "rest"
"""Size of the part that takes what the others leave."""


def split_feedback(
    source: Path, data_format: FeedbackFormat, parts: Mapping[str, int | None], folder: Path, seed: int | None
) -> dict[str, int]:
    """Write the rows of a file to one file a part, unchanged.

    Rows of one question (QA-Feedback), or of one prompt with the same fields (JSONL), stay together, so that a part's
    last question may lead it past its size; the parts after it then begin later.

    Args:
        source: The file; it must be without fault.
        data_format: How it is written, and its parts too.
        parts: Rows of each part by its name, in order; None for one that takes all the rest.
        folder: Where `NAME.json` or `NAME.jsonl` is written for each part.
        seed: Of an order drawn anew; None keeps the order of the file.

    Returns:
        The number of rows of each part.

    Raises:
        ConfigError: The file has faults, or too few rows.
        OSError: A part cannot be written.
    """
    rows = _read(source, data_format)
    order = _groups(rows, data_format, seed)
    wanted = sum(size or 0 for size in parts.values())
    if wanted > len(rows):
        raise ConfigError(str(source), [f"has {len(rows)} rows, fewer than the {wanted} of the parts"])
    divided: dict[str, list[Any]] = {name: [] for name in parts}
    for name, size in parts.items():
        if size is not None:
            while order and len(divided[name]) < size:
                divided[name].extend(order.pop())
            if len(divided[name]) < size:
                raise ConfigError(str(source), [f"too few rows are left for {name}: whole questions stay together"])
    for name, size in parts.items():
        if size is None:
            divided[name].extend(row for group in reversed(order) for row in group)
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in divided.items():
        _write(folder, name, own, data_format)
    return {name: len(own) for name, own in divided.items()}


def parse_parts(texts: list[str]) -> dict[str, int | None]:
    """Read `NAME=ROWS` and `NAME=rest`, two or more.

    Raises:
        ValueError: A part is malformed or named twice, or several take the rest.
    """
    parts: dict[str, int | None] = {}
    for text in texts:
        name, _, size = text.partition("=")
        if not name.isidentifier() or not (size == REST or (size.isdecimal() and int(size) > 0)):
            raise ValueError(f"{text!r} is no part: NAME=ROWS or NAME={REST}")
        if name in parts:
            raise ValueError(f"part {name!r} is given twice")
        parts[name] = None if size == REST else int(size)
    if len(parts) < 2 or list(parts.values()).count(None) > 1:
        raise ValueError(f"give two parts or more, of which one may take the {REST}")
    return parts


def _read(source: Path, data_format: FeedbackFormat) -> list[Any]:
    """Every row as it was written: an object of the JSON list, or a line of bytes."""
    if data_format == "qa_feedback":
        read_qa_feedback([DataFile(source)])
        return list(json.loads(source.read_bytes()))
    read_jsonl([DataFile(source)])
    return [line for line in source.read_bytes().split(b"\n") if line.strip()]


def _groups(rows: list[Any], data_format: FeedbackFormat, seed: int | None) -> list[list[Any]]:
    """The rows by question, last one first."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(_question(row, data_format), []).append(row)
    listed = list(groups.values())
    order = np.arange(len(listed)) if seed is None else np.random.default_rng(seed).permutation(len(listed))
    return [listed[index] for index in order[::-1]]


def _question(row: Any, data_format: FeedbackFormat) -> str:
    if data_format == "qa_feedback":
        return str(row["question"])
    content = json.loads(row)
    return json.dumps([content.get("prompt", ""), content.get("fields", {})], sort_keys=True)


def _write(folder: Path, name: str, rows: list[Any], data_format: FeedbackFormat) -> None:
    if data_format == "qa_feedback":
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    else:
        (folder / f"{name}.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))
