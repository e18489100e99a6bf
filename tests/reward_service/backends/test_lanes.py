"""What a backend's lanes compute."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.openvino_backend import OpenVinoBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.backend import DivisibleBackend
from reward_service.domain import Batch
from reward_service.registry.store import Published, Store

Make = Callable[[Published, int], DivisibleBackend]
MAKERS: dict[str, Make] = {
    "torch": lambda published, threads: TorchBackend(published.path, published.manifest.kind, threads=threads),
    "onnxruntime": lambda published, threads: OnnxBackend(published.onnx_path(), threads=threads),
    "openvino": lambda published, threads: OpenVinoBackend(published.onnx_path(), threads=threads, pad_id=0),
}


@pytest.fixture(params=["relevance", "completeness"])
def published(request: pytest.FixtureRequest, tiny_store: Path) -> Published:
    return Store(tiny_store).resolve(request.param)


def make_batches(seed: int) -> list[Batch]:
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 6)), int(rng.integers(2, 90))) for _ in range(12)]
    return [Batch(ids := rng.integers(4, 260, size=shape), np.ones_like(ids)) for shape in shapes]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_lanes_compute_side_by_side_what_the_whole_computes(make: Make, published: Published) -> None:
    whole = make(published, 2)
    lanes = whole.lanes()
    assert [lane.runtime for lane in lanes] == [whole.runtime] * 2
    work = [make_batches(seed=0), make_batches(seed=1), make_batches(seed=2)]
    expected = [[whole.infer(batch) for batch in batches] for batches in work]
    with ThreadPoolExecutor(3) as pool:
        running = [
            pool.submit(lambda one, some: [one.infer(batch) for batch in some], backend, batches)
            for backend, batches in zip((*lanes, whole), work, strict=True)
        ]
        found = [future.result() for future in running]
    for some, wanted in zip(found, expected, strict=True):
        for logits, right in zip(some, wanted, strict=True):
            np.testing.assert_allclose(logits, right, atol=1e-5)
    whole.close()
    lanes[0].close()
    np.testing.assert_allclose(lanes[1].infer(work[0][0]), expected[0][0], atol=1e-5)
    lanes[1].close()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_one_thread_is_not_divided(make: Make, published: Published) -> None:
    assert len(make(published, 1).lanes()) == 0


def test_torch_computes_with_the_threads_of_what_runs(published: Published) -> None:
    seen: list[tuple[int, int]] = []

    def note(module: torch.nn.Module, arguments: object) -> None:
        seen.append((threading.get_ident(), torch.get_num_threads()))

    whole = TorchBackend(published.path, published.manifest.kind, threads=4)
    whole._model.register_forward_pre_hook(note)
    (batch, *_) = make_batches(seed=0)
    before = torch.get_num_threads()
    lanes = whole.lanes()
    for backend in (whole, *lanes, whole, *lanes):
        with ThreadPoolExecutor(1) as caller:
            caller.submit(backend.infer, batch).result()
    torch.set_num_threads(before)
    assert [threads for _, threads in seen] == [4, 2, 2, 4, 2, 2]
    assert seen[:3] == seen[3:], "each has one thread that calls, whoever asks"
    assert len({thread for thread, _ in seen}) == 3


def test_lanes_of_several_threads_have_sessions_of_their_own(published: Published) -> None:
    """Those that share one also share its threads, and so would have one less than they should."""
    sessions = [lane._session for lane in OnnxBackend(published.onnx_path(), threads=5).lanes()]
    assert len({id(session) for session in sessions}) == 2
    assert [session.get_session_options().intra_op_num_threads for session in sessions] == [2, 2]
    shared = [lane._session for lane in OnnxBackend(published.onnx_path(), threads=3).lanes()]
    assert len(shared) == 3
    assert len({id(session) for session in shared}) == 1


@pytest.mark.parametrize(
    ("rope", "lanes"),
    [
        ({"rope_type": "default"}, 2),
        ({"rope_type": "dynamic", "factor": 2.0}, 0),
        (
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 16,
                "factor": 4.0,
            },
            0,
        ),
    ],
)
def test_a_network_that_changes_with_its_inputs_is_not_shared(tmp_path: Path, rope: dict[str, Any], lanes: int) -> None:
    """Another lane would compute with the frequencies of this one's lengths."""
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=0,
        rope_parameters={"rope_theta": 10000.0, **rope},
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    backend = TorchBackend(tmp_path, ModelKind.SEQUENCE_REGRESSION, threads=2)
    assert len(backend.lanes()) == lanes
