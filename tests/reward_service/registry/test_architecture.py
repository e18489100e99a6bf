import json
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_service.domain import Readout
from reward_service.errors import StoreError
from reward_service.registry.architecture import (
    are_named,
    check_architecture,
    class_labels,
    default_readout,
    position_limit,
)


def test_labels_are_ordered_by_index_not_by_name() -> None:
    names = {str(index): name for index, name in enumerate("zyxwvutsrqp")}
    shuffled = dict(sorted(names.items()))  # "10" before "2"
    assert class_labels({"id2label": shuffled}) == tuple("zyxwvutsrqp")
    assert class_labels({}) == ("LABEL_0", "LABEL_1")
    assert class_labels({"num_labels": 3}) == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "does not number"),
        ({"id2label": {"x": "a"}}, "does not number"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "contradict each other on a, b"),
    ],
)
def test_labels_without_an_order_are_refused(config: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        class_labels(config)


def test_label2id_of_an_earlier_head_says_nothing() -> None:
    config = {"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    assert class_labels(config) == ("a", "b")


def test_which_labels_are_names() -> None:
    assert are_named(("LABEL_1", "LABEL_0"))
    assert are_named(("a",))
    assert not are_named(("LABEL_0", "LABEL_1"))


@pytest.mark.parametrize(
    ("config", "readout"),
    [
        ({"model_type": "qwen3"}, Readout.AFTER),
        ({"model_type": "gpt2"}, Readout.AFTER),
        ({"model_type": "bert", "is_decoder": True}, Readout.AFTER),
        ({"model_type": "modernbert"}, Readout.BEFORE),
        ({}, Readout.BEFORE),
    ],
)
def test_who_sees_ahead(config: dict[str, Any], readout: Readout) -> None:
    assert default_readout(config) is readout


def test_the_class_it_was_saved_from_must_be_of_the_kind() -> None:
    config = {"architectures": ["BertForTokenClassification"]}
    check_architecture(Path("m"), config, ModelKind.TOKEN_CLASSIFICATION)
    check_architecture(Path("m"), {"architectures": None}, ModelKind.TOKEN_CLASSIFICATION)
    with pytest.raises(StoreError, match=r"m/config\.json: is a BertForTokenClassification, not a sequence_regression"):
        check_architecture(Path("m"), config, ModelKind.SEQUENCE_REGRESSION)


def test_classes_must_exclude_each_other() -> None:
    """A softmax over the logits of independent classes, each meant for a sigmoid, would be no probability."""
    config = {"problem_type": "multi_label_classification"}
    with pytest.raises(StoreError, match=r"m/config\.json: problem_type is multi_label_classification"):
        check_architecture(Path("m"), config, ModelKind.SEQUENCE_CLASSIFICATION)
    check_architecture(Path("m"), config, ModelKind.SEQUENCE_CLASSIFICATION, are_independent=True)
    with pytest.raises(StoreError, match=r"single_label_classification, but .* classes may hold at once"):
        check_architecture(
            Path("m"),
            {"problem_type": "single_label_classification"},
            ModelKind.SEQUENCE_CLASSIFICATION,
            are_independent=True,
        )
    with pytest.raises(StoreError, match="problem_type is regression"):
        check_architecture(Path("m"), {"problem_type": "regression"}, ModelKind.SEQUENCE_CLASSIFICATION)
    check_architecture(Path("m"), {"problem_type": "regression"}, ModelKind.SEQUENCE_REGRESSION)
    check_architecture(Path("m"), {"problem_type": None}, ModelKind.SEQUENCE_CLASSIFICATION)


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
