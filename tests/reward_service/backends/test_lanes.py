"""What a backend's lanes compute."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

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
