"""Sampled answers in, feedback files out: the oracle as an annotator with QA-Feedback's form before it."""

import random
from collections.abc import Sequence
from pathlib import Path

from demo.files import FEEDBACK_DEV, questions, read_jsonl
from demo.oracle import annotate
from reward_proto.feedback import PREFERENCE_PAIRS, FeedbackExample, FeedbackFile

PREDICTIONS = max(second for _, second in PREFERENCE_PAIRS)
"""How many answers to each question the annotators see."""


def annotate_samples(root: Path, seed: int) -> None:
    """Write `data/feedback_train.json` and `data/feedback_dev.json` from `samples/responses.jsonl`."""
    asked = questions("feedback", seed)
    predictions: list[list[str]] = [[""] * PREDICTIONS for _ in asked]
    for row in read_jsonl(root / "samples" / "responses.jsonl"):
        index = int(row["id"].partition("/")[2])
        predictions[index][row["sample"]] = row["response"]
    rng = random.Random(f"{seed}/annotate")
    examples = [annotate(question, texts, rng) for question, texts in zip(asked, predictions, strict=True)]
    _write(root / "data" / "feedback_train.json", examples[FEEDBACK_DEV:])
    _write(root / "data" / "feedback_dev.json", examples[:FEEDBACK_DEV])


def _write(path: Path, examples: Sequence[FeedbackExample]) -> None:
    path.write_bytes(FeedbackFile.dump_json(list(examples), by_alias=True, indent=1))
