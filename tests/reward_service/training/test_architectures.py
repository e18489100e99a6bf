"""Every architecture in miniature: trained, published, exported, and served over HTTP on every runtime."""

import asyncio
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
import transformers
from prometheus_client import CollectorRegistry

from reward_proto import ScoreReply
from reward_proto.models import ModelKind
from reward_service.backends.torch_backend import TorchBackend
from reward_service.config import Batching, Limits, ModelSettings, load_settings
from reward_service.core.encode import InputEncoder
from reward_service.core.scorer import Scorer
from reward_service.core.segment import segment_text
from reward_service.domain import Readout, TextItem
from reward_service.registry.store import Store
from reward_service.serve import load_source
from reward_service.training.config import TrainConfig
from reward_service.training.export import export
from reward_service.training.scoring import score_all
from reward_service.training.train import train_models
from reward_service.web.app import create_app
from reward_service.web.metrics import Metrics
from tests.reward_service.training.conftest import COLOURS, WORDS
from tests.reward_service.training.tiny_architectures import (
    MAX_TOKENS,
    SIZES,
    TOLERANCE,
    Architecture,
    architectures,
    assert_close,
    make_tokenizer,
)


@dataclass(frozen=True)
class Trained:
    """A store with a span model and a sequence model of one architecture, each with its export."""

    architecture: Architecture
    store: Store
    items: list[TextItem]


@pytest.fixture(scope="module", params=list(architectures()))
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, feedback_files: tuple[Path, Path]
) -> Trained:
    architecture = architectures()[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(architecture.config).save_pretrained(folder / "encoder")
    make_tokenizer(architecture).save(str(folder / "encoder" / "tokenizer.json"))
    common = {"template": "question: {question} context: {context} answer:"}
    content = {
        "store": str(folder / "store"),
        "encoder": str(folder / "encoder"),
        "threads": 1,
        "device": "cpu",
        "data": {"train": [str(feedback_files[0])], "dev": [str(feedback_files[1])]},
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 5e-3, "max_tokens": MAX_TOKENS},
        "models": {
            "spans": {
                **common,
                "kind": "token_classification",
                "granularity": "sentence",
                "error_types": ["Unverifiable"],
            },
            "whole": {**common, "kind": "sequence_regression", "granularity": "sequence", "pairs": "preference"},
        },
    }
    (folder / "train.yaml").write_text(json.dumps(content))
    train_models(load_settings(folder / "train.yaml", TrainConfig))
    store = Store(folder / "store")
    # Of several lengths, so that a batch of them is padded.
    draw = random.Random(0)
    texts = ["", "Amber.", *(" ".join(draw.choices([*WORDS, *COLOURS], k=count)) for count in range(2, 60, 4))]
    fields = {"question": "What is the colour of the thing?", "context": "The thing is here."}
    items = [TextItem("", text, fields) for text in texts]
    for name in ("spans", "whole"):
        export(store.resolve(name))
    return Trained(architecture, store, items)


class Service:
    """The real app over both models on one runtime, in this process."""

    def __init__(self, store: Store, runtime: str) -> None:
        metrics = Metrics(CollectorRegistry(), 4)
        pool = ThreadPoolExecutor(1)
        batching = Batching(threads=1, max_batch_tokens=65536, max_padding=0.99)  # All items of a request in one batch.
        wanted = [ModelSettings.model_validate({"name": name, "runtime": runtime}) for name in ("spans", "whole")]
        self._sources = [load_source(store, model, Limits(), batching, pool, metrics) for model in wanted]
        self._app = create_app(Scorer(self._sources, pool), metrics, max_items=256, max_body_bytes=1 << 20)
        for source in self._sources:
            source.start()

    def score(self, items: list[TextItem]) -> list[list[float]]:
        """Every number of each item, over HTTP."""
        body = {"items": [{"prompt": "", "response": item.response, "fields": item.fields} for item in items]}

        async def post() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://service") as client:
                return await client.post("/v1/score", json=body)

        reply = asyncio.run(post())
        assert reply.status_code == 200, reply.text
        numbers = []
        for result in ScoreReply.model_validate_json(reply.content).results:
            spans, whole = result.scores["spans"], result.scores["whole"]
            assert spans.error is None
            assert whole.error is None
            numbers.append([*(segment.score for segment in spans.segments or []), whole.sequence_score or 0.0])
        return numbers

    def close(self) -> None:
        for source in self._sources:
            source.close(20.0)


@pytest.fixture(scope="module", params=["torch", "onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def service(request: pytest.FixtureRequest, trained: Trained) -> Iterator[Service]:
    running = Service(trained.store, request.param)
    yield running
    running.close()


def evaluated(trained: Trained) -> list[list[float]]:
    """The same numbers as `reward-service evaluate` computes them, on torch."""
    numbers: list[list[float]] = [[] for _ in trained.items]
    for name in ("spans", "whole"):
        published = trained.store.resolve(name)
        manifest = published.manifest
        encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
        encoded = [encoder.encode(item, [segment_text(item.response, manifest.granularity)]) for item in trained.items]
        backend = TorchBackend(published.path, manifest.kind, threads=1)
        (scores,) = score_all(backend, manifest.logit_heads, encoded, encoder.pad_id)
        for row, score in zip(numbers, scores, strict=True):
            if manifest.kind is ModelKind.TOKEN_CLASSIFICATION:
                row.extend(segment.score for segment in score.segments)
            else:
                row.append(score.sequence_score or 0.0)
    return numbers


def test_the_service_gives_what_evaluate_computes(service: Service, trained: Trained) -> None:
    expected = evaluated(trained)
    assert len({tuple(row) for row in expected}) == len(expected), "the models must tell responses apart"
    assert_close(service.score(trained.items), expected)


def test_a_batch_changes_no_score(service: Service, trained: Trained) -> None:
    together = service.score(trained.items)
    alone = [service.score([item])[0] for item in trained.items[::4]]
    assert_close(alone, together[::4])


BERTS = {"Attention", "SkipLayerNormalization", "BiasGelu"}
RMS = {"SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"}
FUSED = {
    "bert": {*BERTS, "EmbedLayerNormalization"},
    "roberta": {*BERTS, "LayerNormalization"},
    # Positions inside the attention are no pattern of BERT's.
    "deberta-v2": {"SkipLayerNormalization", "LayerNormalization", "BiasGelu"},
    "longformer": {"SkipLayerNormalization", "BiasGelu"},
    "modernbert": {"SkipLayerNormalization", "LayerNormalization", "Gelu"},
    **dict.fromkeys(["llama", "qwen2", "qwen3"], RMS),
}


def test_the_exported_file_is_fused(trained: Trained) -> None:
    layers = SIZES["num_hidden_layers"]
    fused = trained.store.resolve("spans").export_record("onnxruntime-fp32").fused
    assert set(fused) == FUSED[trained.architecture.config.model_type]
    for name in fused.keys() & {"Attention", "BiasGelu"}:
        assert fused[name] == layers
    for name in fused.keys() & {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}:
        assert fused[name] >= 2 * layers  # After the attention and after the feed-forward part of each.


def test_the_manifest_says_where_segments_are_read(trained: Trained) -> None:
    manifest = trained.store.resolve("spans").manifest
    assert manifest.readout is (Readout.AFTER if trained.architecture.is_decoder else Readout.BEFORE)


def test_a_segments_score_knows_its_own_words(trained: Trained) -> None:
    """One that is read where the model cannot see the segment would not move with it."""
    published = trained.store.resolve("spans")
    encoder = InputEncoder(published.load_tokenizer(), published.manifest.input_spec)
    backend = TorchBackend(published.path, ModelKind.TOKEN_CLASSIFICATION, threads=1)
    fields = trained.items[0].fields
    encoded = []
    for last in ("red", "amber"):
        item = TextItem("", f"It is here. It is {last}", fields)
        encoded.append(encoder.encode(item, [segment_text(item.response, published.manifest.granularity)]))
    ((one, two),) = score_all(backend, published.manifest.logit_heads, encoded, encoder.pad_id)
    assert abs(one.segments[-1].score - two.segments[-1].score) > TOLERANCE
