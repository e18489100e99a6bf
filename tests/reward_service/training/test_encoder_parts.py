from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForTokenClassification,
    BertConfig,
    DebertaV2Config,
    LlamaConfig,
    LongformerConfig,
    ModernBertConfig,
    PretrainedConfig,
    Qwen3Config,
    RobertaConfig,
)

from reward_proto.models import ModelKind
from reward_service.errors import StoreError
from reward_service.training.encoder_parts import change_config, freeze
from reward_service.training.model import build_model

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 2,
    "pad_token_id": 0,
}
CONFIGS: list[PretrainedConfig] = [
    BertConfig(**SIZES),
    RobertaConfig(**SIZES),
    DebertaV2Config(**SIZES),
    LongformerConfig(**SIZES, attention_window=[4, 4, 8]),
    ModernBertConfig(**SIZES, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2),
    LlamaConfig(**SIZES, num_key_value_heads=2),
    Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
]
BY_TYPE = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)


@BY_TYPE
def test_the_first_layers_of_every_architecture(config: PretrainedConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = AutoModelForTokenClassification.from_config(config)
    whole.save_pretrained(tmp_path)
    short = type(config).from_pretrained(tmp_path)
    change_config(short, layers=2, dropout=None)
    kept = AutoModelForTokenClassification.from_pretrained(tmp_path, config=short)
    kept.save_pretrained(tmp_path / "kept")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "kept")  # Its config.json fits its weights.
    assert again.config.num_hidden_layers == 2
    weights = whole.state_dict()
    assert 0 < len(again.state_dict()) < len(weights)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, weights[name])


@BY_TYPE
def test_frozen_parts_are_the_embeddings_and_the_first_layers(config: PretrainedConfig) -> None:
    model = AutoModelForTokenClassification.from_config(config)
    freeze(model, 2)
    for name, parameter in model.named_parameters():
        is_frozen = "embed" in name or ".0." in name or ".1." in name
        if "rel_embeddings" in name or ".encoder.LayerNorm" in name:  # DeBERTa's last layer reads them too.
            is_frozen = False
        assert parameter.requires_grad is not is_frozen, name


def test_every_dropout_is_set() -> None:
    config = BertConfig(**SIZES, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3)
    change_config(config, layers=None, dropout=0.0)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.classifier_dropout) == (0, 0, 0)
    assert config.num_hidden_layers == 3


def test_more_layers_than_there_are(encoder_dir: Path) -> None:
    with pytest.raises(StoreError, match="has 1 layers, not 2"):
        build_model(
            encoder_dir, ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), pad_id=0, vocab_size=20, seed=0, layers=2
        )
    model = build_model(encoder_dir, ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), pad_id=0, vocab_size=20, seed=0)
    with pytest.raises(StoreError, match="over the encoder's 1"):
        freeze(model, 2)
