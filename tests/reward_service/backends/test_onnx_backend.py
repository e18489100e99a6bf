import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.collate import collate
from reward_service.domain import Batch, Encoded, Read
from reward_service.errors import ModelFailedError
from reward_service.registry.store import Store

TOLERANCE = 1e-5
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


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


@pytest.fixture
def path(tiny_store: Path) -> Path:
    return Store(tiny_store).resolve("relevance").onnx_path()


@pytest.mark.parametrize("device", ["tpu", "cuda", "cuda:1"])
def test_a_device_that_the_build_lacks_is_refused(path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=f"cannot use device '{device}'; this build has CPUExecutionProvider"):
        OnnxBackend(path, threads=1, device=device)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif(HAS_CUDA, reason="needs a build without CUDA")
def test_a_provider_that_does_not_start_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a build with CUDA on a machine that lacks its libraries: the session starts, on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(ValueError, match="could not start CUDAExecutionProvider"):
        OnnxBackend(path, threads=1, device="cuda")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RuntimeError, match=r"model\.onnx"):
        OnnxBackend(tmp_path / "model.onnx", threads=1)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu")
def test_a_gpu_agrees_with_the_cpu(path: Path) -> None:
    batch = collate(make_inputs(7), pad_id=0)
    real = batch.attention_mask.astype(bool)
    one, two = (OnnxBackend(path, threads=1, device=device).infer(batch)[real] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_the_path_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, reward_service.backends.onnx_backend, reward_service.serve, reward_service.cli\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
