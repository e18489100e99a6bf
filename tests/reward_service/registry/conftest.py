"""A directory that looks like a model's, without any."""

import json
from pathlib import Path

import pytest

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.registry.manifest import Manifest, SegmenterSpec

WEIGHTS = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file with no tensor."""

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [
        {"id": 0, "content": "[SEP]", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[SEP]": 0, "one": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    config = {"model_type": "bert", "max_position_embeddings": 64, "id2label": {"0": "error", "1": "ok"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(WEIGHTS)
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return directory


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="relevance",
        kind=ModelKind.TOKEN_CLASSIFICATION,
        granularity=Granularity.SUB_SENTENCE,
        template="question: {question} answer:",
        labels=("error", "ok"),
        ok_label="ok",
        max_tokens=64,
        segmenter=SegmenterSpec(version=SEGMENTER_VERSION),
        calibration=Calibration(mean=0.5, std=0.25),
    )
