"""The world's files: demonstrations, prompts, untrained models; and the way from a prompt's id back to its facts."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demo.vocabulary import save_policy_tokenizer
from demo.world import Question, demonstrate, make_habits, make_question

SPLITS = {"feedback": 3000, "rl": 4000, "development": 300, "held_out": 500}
"""How many questions each split of prompts has; no question stands in two splits."""
FEEDBACK_DEV = 500
"""How many of the feedback questions are kept from training, to measure the reward models on."""
DEMONSTRATIONS = 20_000
DEMONSTRATIONS_DEV = 300


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def questions(split: str, seed: int) -> list[Question]:
    """The questions of a split, the same for the same seed.

    Every split draws from a stream of its own and skips what an earlier split holds.
    """
    seen: set[str] = set()
    for name, size in SPLITS.items():
        rng = random.Random(f"{seed}/{name}")
        found: list[Question] = []
        while len(found) < size:
            question = make_question(rng)
            if question.prompt not in seen:
                seen.add(question.prompt)
                found.append(question)
        if name == split:
            return found
    raise KeyError(split)


def _prompt_row(split: str, index: int, question: Question) -> dict[str, Any]:
    return {"id": f"{split}/{index}", "prompt": question.prompt, "fields": question.fields}


def make_world(root: Path, seed: int) -> None:
    """Write demonstrations, prompts and the untrained policy's directory under `root`."""
    rng = random.Random(f"{seed}/demonstrations")
    habits = make_habits(random.Random(f"{seed}/habits"))
    for name, size in (("demos", DEMONSTRATIONS), ("demos_dev", DEMONSTRATIONS_DEV)):
        asked = (make_question(rng) for _ in range(size))
        rows = (
            {"id": f"{name}/{i}", "prompt": question.prompt, "response": demonstrate(question, habits, rng)}
            for i, question in enumerate(asked)
        )
        write_jsonl(root / "data" / f"{name}.jsonl", rows)
    for split in SPLITS:
        rows = (_prompt_row(split, i, question) for i, question in enumerate(questions(split, seed)))
        write_jsonl(root / "data" / f"{split}.jsonl", rows)
    make_policy(root / "init")


def make_policy(directory: Path) -> None:
    """Write the configuration and tokenizer of an untrained T5 of under a million parameters."""
    from transformers import T5Config

    directory.mkdir(parents=True, exist_ok=True)
    size = save_policy_tokenizer(directory)
    T5Config(
        vocab_size=size,
        d_model=128,
        d_ff=256,
        d_kv=32,
        num_heads=4,
        num_layers=1,
        num_decoder_layers=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        architectures=["T5ForConditionalGeneration"],
    ).save_pretrained(directory)
