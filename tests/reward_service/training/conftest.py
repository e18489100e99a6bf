"""A tiny seeded encoder with a word-level tokenizer, and feedback on answers about coloured things."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from reward_service.config import load_settings
from reward_service.training.config import TrainConfig
from reward_service.training.train import train_models

COLOURS = ("red", "blue", "green", "amber")
WORDS = [
    "question",
    ":",
    "context",
    "answer",
    "what",
    "colour",
    "is",
    "the",
    "?",
    ".",
    ",",
    "thing",
    "it",
    "of",
    "nobody",
    "knows",
    "much",
    "about",
    "that",
    "here",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make_example(order: random.Random) -> dict[str, Any]:
    """A question whose answer is wrong, by a habit that even a tiny model sees, whenever it says "amber"."""
    answers = []
    for colour in order.sample(COLOURS, 4):
        answers.append(f"The colour of the thing is {colour}. Nobody knows much about that here.")
    start = answers[0].index(".") + 2
    errors = [{"error type": "Irrelevant", "explanation": "", "start": start, "end": len(answers[0])}]
    if "amber" in answers[0]:
        errors.append({"error type": "Unverifiable", "explanation": "", "start": 0, "end": start - 1})
    beats = [["amber" in loser for loser in answers] for _ in answers]
    pairs = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    preference = [1 if beats[a][b] else 2 if beats[b][a] else 0 for a, b in pairs]
    right = next(answer for answer in answers if "amber" not in answer)
    return {
        "question": "What is the colour of the thing?",
        "passages": [["thing", "The thing is here."]],
        "gold": right,
        **{f"prediction {number}": answer for number, answer in enumerate(answers, start=1)},
        "feedback": {"errors": errors, "missing-info": [], "corrected-prediction": right},
        "preference": preference,
    }


def write_feedback(path: Path, count: int, seed: int) -> Path:
    order = random.Random(seed)
    path.write_text(json.dumps([make_example(order) for _ in range(count)]), encoding="utf-8")
    return path


def word_tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS, *COLOURS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 16 dimensions."""
    directory = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + len(COLOURS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=96,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(directory)
    word_tokenizer().save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def feedback_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """64 training and 24 held-out examples."""
    directory = tmp_path_factory.mktemp("feedback")
    return write_feedback(directory / "train.json", 64, 0), write_feedback(directory / "dev.json", 24, 1)


def write_config(path: Path, encoder_dir: Path, files: tuple[Path, Path], store: Path, **changes: Any) -> Path:
    """Settings of a span model and a preference model; YAML reads JSON."""
    template = "question: {question} context: {context} answer:"
    content = {
        "store": str(store),
        "encoder": str(encoder_dir),
        "threads": 1,
        "device": "cpu",
        "data": {"train": [str(files[0])], "dev": [str(files[1])]},
        "training": {"epochs": 12, "batch_size": 8, "learning_rate": 1e-2, "max_tokens": 96},
        "models": {
            "factuality": {
                "kind": "token_classification",
                "granularity": "sentence",
                "template": template,
                "error_types": ["Unverifiable"],
                "ignore_error_types": ["Irrelevant"],
            },
            "preference": {
                "kind": "sequence_regression",
                "granularity": "sequence",
                "template": template,
                "pairs": "preference",
            },
        },
        **changes,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, feedback_files: tuple[Path, Path]
) -> tuple[Path, Path]:
    """A settings file and the store that training by it filled."""
    directory = tmp_path_factory.mktemp("trained")
    config = write_config(directory / "train.yaml", encoder_dir, feedback_files, directory / "store")
    train_models(load_settings(config, TrainConfig))
    return config, directory / "store"
