"""Tiny seeded models in a store: a byte-level BERT for each granularity, exported to ONNX."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.registry.store import Store
from reward_service.training.export import export

MAX_TOKENS = 1024
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def byte_tokenizer() -> Tokenizer:
    """One token for each UTF-8 byte, so that every text can be encoded and told apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def publish_tiny(store: Store, scratch: Path, manifest: Manifest, seed: int) -> str:
    """Publish a seeded model with its ONNX export; returns the version."""
    torch.manual_seed(seed)
    classes = sum(head.width for head in manifest.logit_heads)
    config = BertConfig(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=manifest.max_tokens,
        num_labels=classes,
        initializer_range=0.3,  # Large, so that scores differ visibly from one text to the next.
        attn_implementation="eager",
    )
    reads_tokens = manifest.kind is ModelKind.TOKEN_CLASSIFICATION
    model = (BertForTokenClassification if reads_tokens else BertForSequenceClassification)(config).eval()
    files = scratch / manifest.name
    model.save_pretrained(files)
    byte_tokenizer().save(str(files / "tokenizer.json"))
    published = store.publish(files, manifest)
    export(published)
    return published.version


def tiny_manifests() -> list[Manifest]:
    """The paper's three models in miniature."""
    segmenter = SegmenterSpec(version=SEGMENTER_VERSION)
    return [
        Manifest(
            name="relevance",
            kind=ModelKind.TOKEN_CLASSIFICATION,
            granularity=Granularity.SUB_SENTENCE,
            template="question: {question} answer:",
            labels=("ok", "error"),
            ok_label="ok",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
            calibration=Calibration(mean=0.5, std=0.25),
        ),
        Manifest(
            name="factuality",
            kind=ModelKind.TOKEN_CLASSIFICATION,
            granularity=Granularity.SENTENCE,
            template="{prompt} answer:",
            labels=("error", "ok", "unsure"),
            ok_label="ok",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
        ),
        Manifest(
            name="completeness",
            kind=ModelKind.SEQUENCE_REGRESSION,
            granularity=Granularity.SEQUENCE,
            template="{prompt} answer:",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
        ),
    ]


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with relevance (needs the field `question`), factuality and completeness, each exported to ONNX."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root)
    for seed, manifest in enumerate(tiny_manifests()):
        publish_tiny(store, tmp_path_factory.mktemp("scratch"), manifest, seed)
    return root
