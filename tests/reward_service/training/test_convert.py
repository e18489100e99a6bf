"""The layout that Hugging Face's Trainer left in 2023, as of the paper's released Longformers, in miniature."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import LongformerConfig, LongformerForTokenClassification
from typer.testing import CliRunner, Result

from reward_proto.models import ModelKind
from reward_service.backends.torch_backend import TorchBackend
from reward_service.cli import app
from reward_service.core.collate import collate
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import TextItem
from reward_service.errors import StoreError
from reward_service.registry.store import Store
from reward_service.training.convert import convert_checkpoint

# By the alphabet NF-ERR would come first.
LABELS = ("O", "Ignore", "NF-ERR")
MARKS = ("<s>", "<pad>", "</s>", "<unk>")


class Planted:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    vocabulary = {token: index for index, token in enumerate([*MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    config = LongformerConfig(
        vocab_size=len(vocabulary) + 1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        attention_window=[8, 8],
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        initializer_range=0.3,
        architectures=["LongformerForTokenClassification"],
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    weights = LongformerForTokenClassification(config).state_dict()
    weights["longformer.embeddings.position_ids"] = torch.arange(130)[None]
    weights["longformer.pooler.dense.weight"] = torch.zeros(16, 16)  # Of the pretrained model, kept by older loaders.
    torch.save(weights, directory / "pytorch_model.bin")
    (directory / "config.json").write_text(config.to_json_string(use_diff=False))
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
    marks |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    (directory / "special_tokens_map.json").write_text(json.dumps(marks))
    settings = {**marks, "add_prefix_space": True, "model_max_length": 128, "tokenizer_class": "LongformerTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.save({"learning_rate": 5e-6}, directory / "training_args.bin")
    (directory / "trainer_state.json").write_text("{}")
    return directory


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def publish(directory: Path, store: Path, *more: str) -> Result:
    kind = (
        "--kind",
        "token_classification",
        "--granularity",
        "sub_sentence",
        "--template",
        "question: {question} answer:",
    )
    return call("models", "publish", directory, "--name", "relevance", *kind, "--store", store, *more)


def test_as_it_is_it_is_refused_with_the_way_out(checkpoint: Path, tmp_path: Path) -> None:
    result = publish(checkpoint, tmp_path)
    assert result.exit_code == 2
    assert "pytorch_model.bin: pickled weights are refused; `reward-service models convert DIR OUT`" in result.stderr


def test_converted_it_is_published_and_scores_as_it_did(checkpoint: Path, tmp_path: Path) -> None:
    told = call("models", "convert", checkpoint, tmp_path / "out")
    assert told.exit_code == 0, told.output
    assert "tokenizer.json: built from tokenizer_config.json" in told.stdout
    assert "training_args.bin: left out" in told.stdout
    assert "trainer_state.json: left out" in told.stdout
    published = publish(tmp_path / "out", tmp_path / "store")
    assert published.exit_code == 0, published.output
    version = Store(tmp_path / "store").resolve("relevance")
    assert (version.manifest.labels, version.manifest.ok_label) == (LABELS, "O")
    assert version.manifest.max_tokens == 128
    encoder = InputEncoder(version.load_tokenizer(), version.manifest.input_spec)
    text = "It was built, as far as is known, in 1932. Yes."
    item = TextItem("", text, {"question": "When?"})
    encoded = encoder.encode(item, [segment_text(text, version.manifest.granularity)])
    batch = collate([encoded], encoder.pad_id)
    logits = TorchBackend(version.path, ModelKind.TOKEN_CLASSIFICATION, threads=1).infer(batch)
    # The original, by transformers' own windowed attention.
    config = LongformerConfig.from_pretrained(checkpoint)
    original = LongformerForTokenClassification(config).eval()
    original.load_state_dict(torch.load(checkpoint / "pytorch_model.bin"), strict=False)
    with torch.no_grad():
        expected = original(**{key: torch.from_numpy(getattr(batch, key)) for key in ("input_ids", "attention_mask")})
    assert torch.allclose(torch.from_numpy(logits), expected.logits, atol=1e-5, rtol=0)


def test_the_tokenizer_is_built_with_the_settings_beside_it(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("ab").tokens == ["<s>", "Ġ", "a", "b", "</s>"]
    assert tokenizer.token_to_id("<pad>") == 1


def test_a_class_that_was_never_trained_goes(checkpoint: Path, tmp_path: Path) -> None:
    result = call("models", "convert", checkpoint, tmp_path / "out", "--drop-label", "Ignore")
    assert "Ignore: left out of the head; its classes are O, NF-ERR" in result.stdout
    before, after = torch.load(checkpoint / "pytorch_model.bin"), load_file(tmp_path / "out" / "model.safetensors")
    for part in ("weight", "bias"):
        assert torch.equal(after[f"classifier.{part}"], before[f"classifier.{part}"][[0, 2]])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "O", "1": "NF-ERR"}
    assert config["label2id"] == {"O": 0, "NF-ERR": 1}
    assert publish(tmp_path / "out", tmp_path / "store").exit_code == 0
    refused = call("models", "convert", checkpoint, tmp_path / "other", "--drop-label", "F-ERR")
    assert "config.json: no class 'F-ERR' in a head of O, Ignore, NF-ERR" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for path in checkpoint.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_pickle_that_does_something_does_nothing(copy: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "b": Planted(tmp_path / "planted")}, copy / "pytorch_model.bin")
    with pytest.raises(StoreError, match=r"pytorch_model\.bin: is no file of weights alone"):
        convert_checkpoint(copy, tmp_path / "out")
    assert not (tmp_path / "planted").exists()
    assert not (tmp_path / "out").exists()


def test_shards_become_one_file(copy: Path, tmp_path: Path) -> None:
    weights = torch.load(copy / "pytorch_model.bin")
    (copy / "pytorch_model.bin").unlink()
    parts = {"pytorch_model-00001-of-00002.bin": {}, "pytorch_model-00002-of-00002.bin": {}}
    for index, name in enumerate(weights):
        parts[sorted(parts)[index % 2]][name] = weights[name]
    for name, part in parts.items():
        torch.save(part, copy / name)
    places = {tensor: name for name, part in parts.items() for tensor in part}
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    convert_checkpoint(copy, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == weights.keys() - {"longformer.embeddings.position_ids"}
    assert all(torch.equal(found[name], weights[name]) for name in found)
    (copy / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(StoreError, match=r"00002-of-00002\.bin: missing"):
        convert_checkpoint(copy, tmp_path / "other")


def test_what_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="copy: exists already"):
        convert_checkpoint(copy, copy)
    with pytest.raises(StoreError, match="no such directory"):
        convert_checkpoint(tmp_path / "absent", tmp_path / "out")
    torch.save([1, 2], copy / "pytorch_model.bin")
    with pytest.raises(StoreError, match="holds more than the tensors"):
        convert_checkpoint(copy, tmp_path / "out")
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(StoreError, match=r"pytorch_model\.bin: missing"):
        convert_checkpoint(copy, tmp_path / "out")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {}}))
    with pytest.raises(StoreError, match="auto_map"):
        convert_checkpoint(copy, tmp_path / "out")
    (copy / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match=r"vocab\.txt: a link out"):
        convert_checkpoint(copy, tmp_path / "out")


def test_a_tokenizer_that_cannot_be_built(copy: Path, tmp_path: Path) -> None:
    (copy / "merges.txt").unlink()
    with pytest.raises(StoreError, match=r"tokenizer\.json: missing, and cannot be built"):
        convert_checkpoint(copy, tmp_path / "out")
