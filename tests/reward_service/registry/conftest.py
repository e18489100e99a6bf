"""A directory that looks like a model's, without any."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.registry.manifest import Manifest, SegmenterSpec


def safetensors(*tensors: tuple[str, str, tuple[int, ...], bytes]) -> bytes:
    """A file of tensors, each a name, a type, a shape and its bytes."""
    header, data = {}, b""
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


WEIGHTS = safetensors(("classifier.weight", "F32", (2, 4), np.arange(8, dtype="<f4").tobytes()))
"""A head of two logits."""

OTHER_WEIGHTS = safetensors(("classifier.weight", "F32", (2, 4), np.ones(8, dtype="<f4").tobytes()))

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
    config = {
        "model_type": "bert",
        "max_position_embeddings": 64,
        "vocab_size": 8,
        "id2label": {"0": "error", "1": "ok"},
        "label2id": {"error": 0, "ok": 1},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(WEIGHTS)
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return directory


@pytest.fixture(name="safetensors")
def safetensors_fixture() -> Callable[..., bytes]:
    """Builds safetensors files."""
    return safetensors


@pytest.fixture
def other_weights() -> bytes:
    """Weights of the same shape with other numbers."""
    return OTHER_WEIGHTS


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
