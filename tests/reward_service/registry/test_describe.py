import json
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.errors import StoreError
from reward_service.registry.describe import class_labels, describe, find_ok_label, position_limit
from reward_service.registry.manifest import Manifest


def described(files: Path, **changes: Any) -> Manifest:
    given = {
        "name": "m",
        "kind": ModelKind.TOKEN_CLASSIFICATION,
        "granularity": Granularity.SENTENCE,
        "template": "{question}",
    }
    return describe(files, **{**given, **changes})


def test_labels_and_length_come_from_the_config(files: Path) -> None:
    manifest = described(files)
    assert (manifest.labels, manifest.ok_label, manifest.max_tokens) == (("error", "ok"), "ok", 64)
    assert described(files, max_tokens=10, ok_label="error").ok_label == "error"


def test_a_regressor_has_no_labels(files: Path) -> None:
    manifest = described(files, kind=ModelKind.SEQUENCE_REGRESSION, granularity=Granularity.SEQUENCE)
    assert (manifest.labels, manifest.ok_label) == ((), "")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"max_tokens": 65}, "64 positions"),
        ({"ok_label": "fine"}, "ok_label"),
        ({"template": "{q!r}"}, "bare"),
        ({"cut_field": "context"}, "exactly once"),
        ({"kind": ModelKind.SEQUENCE_REGRESSION}, "whole sequence"),
        ({"name": "a b"}, "pattern"),
    ],
)
def test_faults_are_told(files: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(StoreError, match=fault):
        described(files, **changes)


def test_a_broken_tokenizer_is_told(files: Path) -> None:
    (files / "tokenizer.json").write_text("{}")
    with pytest.raises(StoreError):
        described(files)


def test_labels_are_ordered_by_index_not_by_name() -> None:
    names = {str(index): name for index, name in enumerate("zyxwvutsrqp")}
    shuffled = dict(sorted(names.items()))  # "10" before "2"
    assert class_labels({"id2label": shuffled}) == tuple("zyxwvutsrqp")
    assert class_labels({}) == ("LABEL_0", "LABEL_1")


def test_the_ok_label_is_found_by_name() -> None:
    assert find_ok_label(("OK", "error")) == "OK"
    assert find_ok_label(("F-ERR", "O")) == "O"
    assert find_ok_label(("LABEL_0", "LABEL_1")) == "LABEL_1"


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        # RoBERTa: 514 rows, of which those up to the pad id (1) are never positions.
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "longformer", "max_position_embeddings": 4098, "pad_token_id": 1}, 4096),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": "deberta-v2", "max_position_embeddings": -1}, None),
        ({}, None),
    ],
)
def test_position_limits(config: dict[str, Any], limit: int | None) -> None:
    assert position_limit(json.loads(json.dumps(config))) == limit
