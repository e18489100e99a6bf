"""A decoder that was trained elsewhere: described, published, exported and scored."""

import json
from pathlib import Path

import torch
import transformers

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import TextItem
from reward_service.registry.describe import describe
from reward_service.registry.store import Store
from reward_service.training.export import export
from reward_service.training.scoring import score_all
from tests.reward_service.training.tiny_architectures import architectures, assert_close, make_tokenizer


def test_a_decoder_from_elsewhere_without_an_id_for_padding(tmp_path: Path) -> None:
    """A sequence classifier, which transformers itself runs one text at a time only, without such an id."""
    architecture = architectures()["llama"]
    architecture.config.num_labels = 3
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(architecture.config)
    model.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["pad_token_id"] is None
    make_tokenizer(architecture).save(str(tmp_path / "model" / "tokenizer.json"))
    common = {"kind": ModelKind.SEQUENCE_CLASSIFICATION, "granularity": Granularity.SEQUENCE, "template": "{prompt}"}
    manifest = describe(tmp_path / "model", name="m", labels=("bad", "so-so", "good"), **common)
    store = Store(tmp_path / "store")
    published = store.publish(tmp_path / "model", manifest)
    assert export(published)[1].parity["m"].label_flips == 0
    encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
    items = [TextItem("it", text) for text in ("", "red .", "nobody knows much about that thing here .")]
    encoded = [encoder.encode(item, [segment_text(item.response, manifest.granularity)]) for item in items]
    backend = TorchBackend(published.path, manifest.kind, threads=1)
    (together,) = score_all(backend, manifest.logit_heads, encoded, encoder.pad_id)
    alone = [score_all(backend, manifest.logit_heads, [item], encoder.pad_id)[0][0] for item in encoded]
    assert_close([[one.sequence_score or 0.0] for one in alone], [[one.sequence_score or 0.0] for one in together])
    assert len({one.sequence_score for one in together}) == 3
