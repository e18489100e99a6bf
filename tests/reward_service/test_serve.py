import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.config import Batching, Limits, ModelSettings, Runtime
from reward_service.domain import ModelCard
from reward_service.errors import StoreError
from reward_service.registry.store import Store
from reward_service.serve import load_source
from reward_service.web.metrics import Metrics


def load(store: Path, threads: int = 1, **wanted: str) -> ModelCard:
    settings = ModelSettings.model_validate({"name": "relevance", **wanted})
    metrics = Metrics(CollectorRegistry(), 4)
    source = load_source(Store(store), settings, Limits(), Batching(threads=threads), ThreadPoolExecutor(1), metrics)
    (card,) = source.cards
    return card


@pytest.fixture
def not_exported(tiny_store: Path, tmp_path: Path) -> Path:
    version = Store(tiny_store).resolve("relevance").version
    shutil.copytree(tiny_store / "relevance", tmp_path / "relevance")
    shutil.rmtree(tmp_path / "relevance" / f"{version}.exports")
    return tmp_path


def test_the_card_is_the_manifests(tiny_store: Path) -> None:
    published = Store(tiny_store).resolve("relevance")
    card = load(tiny_store)
    assert (card.name, card.version, card.digest) == ("relevance", published.version, published.digest)
    assert (card.aliases, card.max_tokens, card.language) == (("latest",), 1024, "en")
    assert card.head.kind is ModelKind.TOKEN_CLASSIFICATION
    assert card.head.labels == ("ok", "error")
    assert card.calibration == (0.5, 0.25)


@pytest.mark.parametrize("name", ["relevance@latest", "relevance@{version}"])
def test_a_model_is_found_by_alias_and_version(tiny_store: Path, name: str) -> None:
    version = Store(tiny_store).resolve("relevance").version
    assert load(tiny_store, name=name.format(version=version)).version == version


def test_auto_chooses_and_a_named_runtime_is_taken(tiny_store: Path, not_exported: Path) -> None:
    assert load(not_exported).runtime == "torch-fp32"
    assert load(tiny_store).runtime in {"torch-fp32", "onnxruntime-fp32", "openvino-fp32"}
    assert load(tiny_store, runtime=Runtime.TORCH).runtime == "torch-fp32"
    assert load(tiny_store, runtime=Runtime.ONNXRUNTIME).runtime == "onnxruntime-fp32"


def test_what_is_not_there_is_a_store_error(tiny_store: Path, not_exported: Path) -> None:
    with pytest.raises(StoreError, match="no onnxruntime fp32 export"):
        load(not_exported, runtime=Runtime.ONNXRUNTIME)
    with pytest.raises(StoreError, match=r"no such model \(there is: completeness, factuality, relevance\)"):
        load(tiny_store, name="nobody")
    with pytest.raises(StoreError, match="device 'cuda'"):
        load(tiny_store, device="cuda")


def test_lanes_that_cannot_be_opened_are_told(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(backend: OnnxBackend, threads: int) -> None:
        if threads == 1:
            raise RuntimeError("no memory for a second session")

    monkeypatch.setattr(OnnxBackend, "_open", refuse)
    with pytest.raises(StoreError, match=r"relevance@.*no memory for a second session"):
        load(tiny_store, threads=2, runtime="onnxruntime")
