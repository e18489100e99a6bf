from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForTokenClassification, LongformerConfig, LongformerForTokenClassification

from reward_proto.models import ModelKind
from reward_service.backends.classifier import load_classifier
from reward_service.backends.dense_longformer import DenseAttention
from reward_service.errors import StoreError

KIND = ModelKind.TOKEN_CLASSIFICATION
SIZES = {"vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    BertForTokenClassification(BertConfig(**SIZES)).save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_loads_in_evaluation_mode(checkpoint: Path) -> None:
    model = load_classifier(checkpoint, KIND, attention="eager", dtype=torch.bfloat16)
    assert not model.training
    assert model.config._attn_implementation == "eager"
    assert model.classifier.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["classifier.weight", "bert.encoder.layer.0.output.dense.weight"])
def test_weights_are_never_drawn(checkpoint: Path, name: str) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    small = {**weights, name: weights[name][:1].clone()}
    save_file(small, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        load_classifier(checkpoint, KIND)
    del weights[name]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        load_classifier(checkpoint, KIND)


def test_another_kinds_head_is_not_enough(checkpoint: Path) -> None:
    with pytest.raises(StoreError, match=r"BertForSequenceClassification .*bert\.pooler"):
        load_classifier(checkpoint, ModelKind.SEQUENCE_CLASSIFICATION)


def test_longformer_gets_its_dense_attention(tmp_path: Path) -> None:
    config = LongformerConfig(**SIZES, attention_window=4, max_position_embeddings=16, pad_token_id=1)
    LongformerForTokenClassification(config).save_pretrained(tmp_path)
    model = load_classifier(tmp_path, KIND)
    assert isinstance(model.longformer.encoder.layer[0].attention.self, DenseAttention)
