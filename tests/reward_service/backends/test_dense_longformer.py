"""The dense attention against transformers' windowed one."""

import copy
from typing import Any

import pytest
import torch
from transformers import LongformerConfig, LongformerForSequenceClassification, LongformerForTokenClassification

from reward_service.backends.dense_longformer import densify

ARCHITECTURES = [LongformerForTokenClassification, LongformerForSequenceClassification]
# Below, at, between and beyond the windows of 8 and 16 tokens; transformers pads each to a multiple of 16.
LENGTHS = ([1], [7], [16], [33], [60, 41, 5])


def pair(architecture: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = LongformerConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attention_window=[8, 16],
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.3,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )
    windowed = architecture(config).eval()
    dense = copy.deepcopy(windowed)
    densify(dense)
    return windowed, dense


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    ids = torch.full((len(lengths), max(lengths)), 1)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, 40, (length,))
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_real_tokens_get_the_same_logits(architecture: Any, lengths: list[int]) -> None:
    windowed, dense = pair(architecture)
    inputs = batch(lengths)
    with torch.no_grad():
        expected, got = windowed(**inputs).logits, dense(**inputs).logits
    if expected.ndim == 3:
        expected, got = (logits[inputs["attention_mask"] == 1] for logits in (expected, got))
    assert torch.allclose(got, expected, atol=1e-5, rtol=0)
    assert torch.isfinite(got).all()


def test_a_token_out_of_reach_is_not_seen() -> None:
    _, dense = pair(LongformerForTokenClassification)
    inputs = batch([60])
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, 59] = 2
    with torch.no_grad():
        moved = (dense(**inputs).logits - dense(**changed).logits).abs().amax(dim=-1)[0] > 0
    # Two layers reach 4 and 8 tokens.
    assert not moved[: 59 - 12].any()
    assert moved[59 - 12 :].all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_trains_to_the_same_gradients(architecture: Any) -> None:
    windowed, dense = pair(architecture)
    inputs = batch([30, 12])
    for model in (windowed, dense):
        logits = model.train()(**inputs).logits
        (logits[0].square().sum() + logits[1, :12].square().sum()).backward()
    for (name, expected), got in zip(windowed.named_parameters(), dense.parameters(), strict=True):
        if expected.grad is None:
            assert got.grad is None, name
        else:
            assert torch.allclose(got.grad, expected.grad, atol=1e-3, rtol=1e-4), name


def test_dropout_is_the_configs_and_only_in_training() -> None:
    _, dense = pair(LongformerForTokenClassification)
    for layer in dense.base_model.encoder.layer:
        layer.attention.self.dropout = 0.5
    inputs = batch([20])
    with torch.no_grad():
        assert torch.equal(dense(**inputs).logits, dense(**inputs).logits)
        dense.train()
        assert not torch.equal(dense(**inputs).logits, dense(**inputs).logits)
