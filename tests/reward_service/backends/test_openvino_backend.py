import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_proto.models import ModelKind
from reward_service.backends import openvino_backend
from reward_service.backends.openvino_backend import OpenVinoBackend
from reward_service.backends.torch_backend import TorchBackend
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError
from reward_service.registry.store import Published, Store

IDS = np.array([[1, 50, 60, 70, 2], [1, 70, 2, 0, 0]], dtype=np.int64)
BATCH = Batch(IDS, (IDS != 0).astype(np.int64))
HAS_BF16 = "BF16" in openvino_backend.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(params=["relevance", "completeness"])
def published(request: pytest.FixtureRequest, tiny_store: Path) -> Published:
    return Store(tiny_store).resolve(request.param)


def test_reads_the_file_of_onnxruntime_and_agrees_with_torch(published: Published) -> None:
    backend = OpenVinoBackend(published.onnx_path(), threads=1)
    logits = backend.infer(BATCH)
    reference = TorchBackend(published.path, published.manifest.kind, threads=1).infer(BATCH)
    real = BATCH.attention_mask.astype(bool) if published.manifest.kind is ModelKind.TOKEN_CLASSIFICATION else ...
    np.testing.assert_allclose(logits[real], reference[real], atol=1e-4)
    assert logits.dtype == np.float32
    assert backend.runtime == "openvino-fp32"
    backend.close()


def test_a_batchs_logits_outlive_the_next_batch(published: Published) -> None:
    backend = OpenVinoBackend(published.onnx_path(), threads=1)
    first = backend.infer(BATCH)
    kept = first.copy()
    backend.infer(Batch(IDS[::-1].copy(), BATCH.attention_mask[::-1].copy()))
    np.testing.assert_array_equal(first, kept)


def test_lengths_are_rounded_up_and_no_score_is_another(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = OpenVinoBackend(published.onnx_path(), threads=1)
    batches = [Batch(ids := np.full((2, length), 50, dtype=np.int64), np.ones_like(ids)) for length in (1, 7, 8, 9)]
    expected = [reference.infer(batch) for batch in batches]
    backend = OpenVinoBackend(published.onnx_path(), threads=1, pad_id=0, max_tokens=9)
    lengths = []
    infer = openvino_backend.openvino.InferRequest.infer

    def spy(request: Any, feed: dict[str, np.ndarray]) -> Any:
        lengths.append(feed["input_ids"].shape[1])
        return infer(request, feed)

    monkeypatch.setattr(openvino_backend.openvino.InferRequest, "infer", spy)
    for batch, logits in zip(batches, expected, strict=True):
        found = backend.infer(batch)
        assert found.shape == logits.shape
        np.testing.assert_allclose(found, logits, atol=1e-5)
    assert lengths == [8, 8, 8, 9], "and never over the model's positions"


@pytest.mark.skipif(not HAS_BF16, reason="needs a CPU with bf16 instructions")
def test_bf16_is_near_fp32_and_not_the_same(published: Published) -> None:
    full = OpenVinoBackend(published.onnx_path(), threads=1).infer(BATCH)
    low = OpenVinoBackend(published.onnx_path(), threads=1, precision="bf16")
    assert low.runtime == "openvino-bf16"
    difference = np.abs(low.infer(BATCH) - full).max()
    assert 1e-5 < difference < 0.2


def test_bf16_is_refused_on_a_cpu_that_lacks_it(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino_backend.openvino, "Core", Old)
    with pytest.raises(ValueError, match="no bf16 instructions"):
        OpenVinoBackend(published.onnx_path(), threads=1, precision="bf16")


def test_what_it_cannot_do_is_refused(published: Published, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fp16"):
        OpenVinoBackend(published.onnx_path(), threads=1, precision="fp16")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(RuntimeError):
        OpenVinoBackend(tmp_path / "model.onnx", threads=1)


def test_a_failing_run_is_model_failed(published: Published) -> None:
    ids = np.full((1, 1500), 5, dtype=np.int64)  # More than the model has positions.
    backend = OpenVinoBackend(published.onnx_path(), threads=1)
    with pytest.raises(ModelFailedError, match=r"\(1, 1500\)"):
        backend.infer(Batch(ids, np.ones_like(ids)))
    assert len(backend.infer(BATCH)) == len(IDS)


def test_the_path_needs_neither_torch_nor_transformers_and_reports_to_nobody() -> None:
    code = (
        "import sys, reward_service.backends.openvino_backend\n"
        "import openvino.tools.ovc.telemetry_utils as reporting\n"
        "print([name for name in ('torch', 'transformers', 'openvino_telemetry') if sys.modules.get(name)])\n"
        "print(reporting.tm.__name__)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split("\n")[:2] == ["[]", "openvino.tools.ovc.telemetry_stub"]
