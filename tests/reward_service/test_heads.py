"""A network of several heads from the store to the scores, against its logits read by hand."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import BertForTokenClassification

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.config import Batching, Limits, ModelSettings
from reward_service.core.scorer import Scorer
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.core.source import ScoreSource
from reward_service.domain import ItemScore, TextItem
from reward_service.errors import ConfigError
from reward_service.registry.manifest import HeadSpec, Manifest, SegmenterSpec
from reward_service.registry.store import Store
from reward_service.serve import check_names, load_source
from reward_service.web.metrics import Metrics
from tests.reward_service.conftest import publish_tiny

SPANS = {"kind": ModelKind.TOKEN_CLASSIFICATION, "labels": ("error", "ok"), "ok_label": "ok"}
HEADS = (
    HeadSpec(name="relevance", granularity=Granularity.SUB_SENTENCE, **SPANS),
    HeadSpec(name="completeness", kind=ModelKind.SEQUENCE_REGRESSION, granularity=Granularity.SEQUENCE),
    HeadSpec(name="factuality", granularity=Granularity.SENTENCE, **SPANS),
)
TEXT = "One two three four five, six seven eight nine ten. Second sentence here."
CLS, SEP = 1, 2
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    manifest = Manifest(
        name="quality",
        kind=ModelKind.TOKEN_CLASSIFICATION,
        granularity=Granularity.SUB_SENTENCE,
        template="{prompt}:",
        heads=HEADS,
        max_tokens=512,
        segmenter=SegmenterSpec(version=SEGMENTER_VERSION),
    )
    publish_tiny(store, tmp_path_factory.mktemp("scratch"), manifest, seed=3)
    return store


def load(store: Store, name: str = "quality", **wanted: str) -> ScoreSource:
    settings = ModelSettings.model_validate({"name": name, "runtime": "onnxruntime", **wanted})
    metrics = Metrics(CollectorRegistry(), 4)
    return load_source(store, settings, Limits(), Batching(threads=1), ThreadPoolExecutor(1), metrics)


@pytest.fixture
def source(store: Store) -> Iterator[ScoreSource]:
    source = load(store)
    source.start()
    yield source
    source.close(20)


def scored(source: ScoreSource, *items: TextItem) -> list[dict[str, ItemScore]]:
    outcome = asyncio.run(source.score(items, None))
    found = []
    for results in outcome.results:
        assert all(isinstance(result, ItemScore) for result in results)
        found.append({card.name: result for card, result in zip(source.cards, results, strict=True)})
    return found  # type: ignore[return-value]


def test_each_head_is_a_model_of_the_same_version(store: Store, source: ScoreSource) -> None:
    published = store.resolve("quality")
    assert [card.name for card in source.cards] == ["relevance", "completeness", "factuality"]
    assert {(card.version, card.digest) for card in source.cards} == {(published.version, published.digest)}
    assert [card.granularity for card in source.cards] == ["sub_sentence", "sequence", "sentence"]
    assert source.name == "quality"


def test_scores_are_the_networks_logits_at_the_separators(store: Store, source: ScoreSource) -> None:
    """The input is put together here byte by byte: the tiny tokenizer's ids are the bytes' places in its alphabet."""
    ((scores),) = scored(source, TextItem("p", TEXT))
    pieces = ["One two three four five,", "six seven eight nine ten.", "Second sentence here."]
    tokenizer = store.resolve("quality").load_tokenizer()
    ids = [CLS, *tokenizer.encode("p:", add_special_tokens=False).ids]
    separators = []
    for piece in pieces:
        separators.append(len(ids))
        ids += [SEP, *tokenizer.encode(f" {piece}", add_special_tokens=False).ids]
    model = BertForTokenClassification.from_pretrained(store.resolve("quality").path).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, SEP]])).logits[0]
    ok = logits[separators, 0:2].softmax(-1)[:, 1].tolist()
    assert [segment.score for segment in scores["relevance"].segments] == pytest.approx(ok, abs=TOLERANCE)
    assert [TEXT[s.span.start : s.span.end] for s in scores["relevance"].segments] == pieces
    sentences = logits[[separators[0], separators[2]], 3:5].softmax(-1)[:, 1].tolist()
    assert [segment.score for segment in scores["factuality"].segments] == pytest.approx(sentences, abs=TOLERANCE)
    assert scores["completeness"].sequence_score == pytest.approx(logits[0, 2].item(), abs=TOLERANCE)


def test_alone_and_among_others_the_scores_are_the_same(source: ScoreSource) -> None:
    items = [TextItem("p", f"{TEXT} {'More words follow here, and here too. ' * n}") for n in range(6)]
    together = scored(source, *items)
    for item, among in zip(items, together, strict=True):
        ((alone),) = scored(source, item)
        for name, score in alone.items():
            assert score.sequence_score == pytest.approx(among[name].sequence_score, abs=TOLERANCE)


def test_a_blank_response_has_a_scalar_and_no_segments(source: ScoreSource) -> None:
    ((scores),) = scored(source, TextItem("p", " "))
    assert scores["relevance"] == scores["factuality"] == ItemScore((), None)
    assert scores["completeness"].segments == ()
    assert isinstance(scores["completeness"].sequence_score, float)


def test_all_heads_cost_one_computation_and_one_may_be_named(source: ScoreSource) -> None:
    scorer = Scorer([source], ThreadPoolExecutor(1))
    every = asyncio.run(scorer.score([TextItem("p", TEXT)]))
    one = asyncio.run(scorer.score([TextItem("p", TEXT)], ["factuality"]))
    assert [model.card.name for model in every.models] == ["relevance", "completeness", "factuality"]
    assert (every.input_tokens, every.padded_tokens) == (one.input_tokens, one.padded_tokens)
    assert one.models[0].results == every.models[2].results


def test_torch_and_onnx_agree(store: Store, source: ScoreSource) -> None:
    torch_source = load(store, runtime="torch")
    torch_source.start()
    ((onnx),), ((reference),) = scored(source, TextItem("p", TEXT)), scored(torch_source, TextItem("p", TEXT))
    torch_source.close(20)
    for name, score in onnx.items():
        assert score.sequence_score == pytest.approx(reference[name].sequence_score, abs=TOLERANCE)


def test_a_head_and_a_model_of_one_name_are_refused(store: Store, tiny_store: Path, source: ScoreSource) -> None:
    with pytest.raises(ConfigError, match="relevance is served twice"):
        check_names([source, load(Store(tiny_store), "relevance")])


def test_a_weight_may_name_a_head_and_must_name_what_is_served(source: ScoreSource) -> None:
    check_names([source], {"factuality": 0.5, "completeness": 0.3})
    with pytest.raises(ConfigError, match=r"compat\.weights: quality is not served"):
        check_names([source], {"quality": 1.0})
