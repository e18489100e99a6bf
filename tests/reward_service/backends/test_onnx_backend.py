import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.collate import collate
from reward_service.domain import Batch, Encoded, Read
from reward_service.errors import ModelFailedError
from reward_service.registry.store import Store

TOLERANCE = 1e-5


def make_inputs(count: int, seed: int = 0) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    nothing = np.zeros(0, dtype=np.int64)
    return [Encoded(rng.integers(4, 260, size=int(rng.integers(2, 200))), (Read(nothing, ()),)) for _ in range(count)]


@pytest.fixture(params=["relevance", "completeness"])
def backend(request: pytest.FixtureRequest, tiny_store: Path) -> OnnxBackend:
    return OnnxBackend(Store(tiny_store).resolve(request.param).onnx_path(), threads=1)


def test_neighbours_and_padding_change_nothing(backend: OnnxBackend) -> None:
    inputs = make_inputs(64)
    together = backend.infer(collate(inputs, pad_id=0))
    for row, item in enumerate(inputs):
        alone = backend.infer(collate([item], pad_id=0))[0]
        here = together[row] if together.ndim == 2 else together[row, : item.length_tokens]
        np.testing.assert_allclose(here, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["relevance", "completeness"])
def test_agrees_with_torch(name: str, tiny_store: Path) -> None:
    published = Store(tiny_store).resolve(name)
    batch = collate(make_inputs(8), pad_id=0)
    onnx = OnnxBackend(published.onnx_path(), threads=1)
    reference = TorchBackend(published.path, published.manifest.kind, threads=1)
    real = batch.attention_mask.astype(bool) if published.manifest.kind is ModelKind.TOKEN_CLASSIFICATION else ...
    np.testing.assert_allclose(onnx.infer(batch)[real], reference.infer(batch)[real], atol=1e-4)
    assert (onnx.runtime, reference.runtime) == ("onnxruntime-fp32", "torch-fp32")


def test_gives_float32(backend: OnnxBackend) -> None:
    assert backend.infer(collate(make_inputs(1), pad_id=0)).dtype == np.float32
    backend.close()


def test_a_failing_run_is_model_failed(backend: OnnxBackend) -> None:
    ids = np.full((1, 3), 10**6, dtype=np.int64)  # Outside the vocabulary.
    with pytest.raises(ModelFailedError, match=r"\(1, 3\)"):
        backend.infer(Batch(ids, np.ones_like(ids)))


def test_a_device_that_the_build_lacks_is_refused(tiny_store: Path) -> None:
    path = Store(tiny_store).resolve("relevance").onnx_path()
    with pytest.raises(ValueError, match="tpu"):
        OnnxBackend(path, threads=1, device="tpu")


def test_the_path_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, reward_service.backends.onnx_backend, reward_service.serve, reward_service.cli\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
