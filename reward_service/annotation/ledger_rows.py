"""Scored responses from the ledger's Parquet, as `reward-service ledger export` writes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reward_service.annotation.scored import ModelScore, ScoredResponse
from reward_service.errors import ConfigError

COLUMNS = ("item_digest", "prompt", "response", "fields", "model", "version", "segments", "sequence_score")
"""What is read of each score."""


@dataclass(frozen=True, slots=True)
class LedgerResponses:
    """What an export holds.

    Attributes:
        responses: Each response once, with its newest score of each version of each model.
        without_text: How many scores have no text, since the ledger was told to keep none.
    """

    responses: list[ScoredResponse]
    without_text: int


def read_ledger(path: Path) -> LedgerResponses:
    """Read an export.

    Raises:
        ConfigError: It cannot be read, or lacks columns, or has no text at all.
    """
    texts: dict[str, tuple[str, dict[str, str], str]] = {}
    scores: dict[str, dict[str, ModelScore]] = {}
    without_text = 0
    try:
        with pq.ParquetFile(path) as file:
            lacking = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if lacking:
                raise ConfigError(
                    str(path), [f"has no column {name}: is it an export of the ledger?" for name in lacking]
                )
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    if row["response"] is None:
                        without_text += 1
                        continue
                    digest = row["item_digest"]
                    texts[digest] = (row["prompt"] or "", json.loads(row["fields"] or "{}"), row["response"])
                    scores.setdefault(digest, {})[f"{row['model']}@{row['version']}"] = _score(row)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(str(path), [str(error)]) from error
    if without_text and not texts:
        raise ConfigError(str(path), ["holds no texts: the ledger keeps them only where its settings allow it"])
    responses = [
        ScoredResponse(prompt, fields, response, scores[digest]) for digest, (prompt, fields, response) in texts.items()
    ]
    return LedgerResponses(responses, without_text)


def _score(row: dict[str, Any]) -> ModelScore:
    labelled = [segment["score"] for segment in row["segments"] or () if segment["label"] is not None]
    return ModelScore(row["sequence_score"], tuple(labelled))
