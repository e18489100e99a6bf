import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTokenClassification, BertForMaskedLM, BertForTokenClassification, BertModel

from reward_proto.models import ModelKind
from reward_service.domain import Batch
from reward_service.errors import StoreError
from reward_service.training.model import ModuleBackend, build_model, load_tokenizer, save_model

LABELS = ("error", "ok")


def build(directory: Path, kind: ModelKind = ModelKind.TOKEN_CLASSIFICATION, seed: int = 0) -> torch.nn.Module:
    labels = LABELS if kind.is_classifier else ()
    return build_model(directory, kind, labels, pad_id=0, vocab_size=20, seed=seed)


def copied(encoder_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_dir, tmp_path / "copy"))


def test_the_encoder_is_loaded_and_the_head_is_seeded(encoder_dir: Path) -> None:
    first, again, other = build(encoder_dir), build(encoder_dir), build(encoder_dir, seed=1)
    original = BertModel.from_pretrained(encoder_dir).state_dict()
    for name, weight in first.bert.state_dict().items():
        assert torch.equal(weight, original[name])
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_labels_and_pad_go_into_the_config(encoder_dir: Path) -> None:
    config = build(encoder_dir).config
    assert config.id2label == {0: "error", 1: "ok"}
    assert config.pad_token_id == 0
    assert build(encoder_dir, ModelKind.SEQUENCE_REGRESSION).config.num_labels == 1


@pytest.mark.parametrize("architecture", [BertForTokenClassification, BertForMaskedLM])
def test_a_checkpoint_with_another_head_will_do(tmp_path: Path, encoder_dir: Path, architecture: type) -> None:
    directory = copied(encoder_dir, tmp_path)
    architecture.from_pretrained(encoder_dir, num_labels=3).save_pretrained(directory)
    for kind in (ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION):
        model = build(directory, kind)
        assert model.classifier.weight.shape[0] == (2 if kind.is_classifier else 1)


def test_lost_encoder_weights_are_an_error(tmp_path: Path, encoder_dir: Path) -> None:
    directory = copied(encoder_dir, tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights.pop("encoder.layer.0.output.dense.weight")
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(StoreError, match=r"encoder\.layer\.0\.output\.dense\.weight"):
        build(directory)


def test_a_vocabulary_smaller_than_the_tokenizers_is_an_error(encoder_dir: Path) -> None:
    with pytest.raises(StoreError, match="embeddings"):
        build_model(encoder_dir, ModelKind.SEQUENCE_REGRESSION, (), pad_id=0, vocab_size=999, seed=0)


def test_pickles_and_code_are_refused(tmp_path: Path, encoder_dir: Path) -> None:
    directory = copied(encoder_dir, tmp_path)
    (directory / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(StoreError, match="pickled"):
        build(directory)
    (directory / "pytorch_model.bin").unlink()
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "auto_map": {}}))
    with pytest.raises(StoreError, match="auto_map"):
        build(directory)


def test_weights_or_a_tokenizer_that_are_missing(tmp_path: Path, encoder_dir: Path) -> None:
    directory = copied(encoder_dir, tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="copy"):
        build(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        load_tokenizer(directory)


def test_a_saved_model_scores_as_before_and_takes_its_tokenizer_along(tmp_path: Path, encoder_dir: Path) -> None:
    model = build(encoder_dir).eval()
    save_model(model, encoder_dir, tmp_path / "saved")
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()
    ids = torch.arange(4, 14)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == (encoder_dir / "tokenizer.json").read_bytes()


def test_the_backend_scores_in_evaluation_mode_and_puts_the_mode_back(encoder_dir: Path) -> None:
    model = build(encoder_dir)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    model.train()
    backend = ModuleBackend(model, torch.device("cpu"))
    batch = Batch(np.arange(4, 14)[None], np.ones((1, 10), dtype=np.int64))
    first = backend.infer(batch)
    assert first.shape == (1, 10, 2)
    assert np.array_equal(first, backend.infer(batch))
    assert model.training
