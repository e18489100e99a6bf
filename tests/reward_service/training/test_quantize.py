import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.openvino_backend import OpenVinoBackend
from reward_service.core.backend import Backend
from reward_service.domain import Batch, Encoded
from reward_service.registry.store import Store
from reward_service.training.quantize import quantize_for_onnxruntime, quantize_for_openvino
from reward_service.training.trace import write_onnx

LAYERS, CLASSES = 2, 2
PRODUCTS = 6 * LAYERS
"""Query, key, value, the attention's output and two of the feed-forward part."""


@pytest.fixture
def traced(tiny_store: Path, tmp_path: Path) -> Path:
    write_onnx(Store(tiny_store).resolve("relevance").path, ModelKind.TOKEN_CLASSIFICATION, tmp_path / "traced.onnx")
    return tmp_path / "traced.onnx"


def texts(count: int) -> list[Encoded]:
    draw = np.random.default_rng(0)
    return [Encoded(draw.integers(4, 200, draw.integers(5, 60)), ()) for _ in range(count)]


def quantized(traced: Path, runtime: str) -> tuple[Path, Backend]:
    target = traced.with_name(f"{runtime}.onnx")
    if runtime == "onnxruntime":
        quantize_for_onnxruntime(traced, target, outputs=CLASSES, texts=texts(8), pad_id=0)
        return target, OnnxBackend(target, threads=1, precision="int8")
    quantize_for_openvino(traced, target, outputs=CLASSES)
    return target, OpenVinoBackend(target, threads=1, precision="int8")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_scores_stay_near_and_weights_shrink(traced: Path, runtime: str) -> None:
    target, backend = quantized(traced, runtime)
    ids = np.random.default_rng(1).integers(4, 200, (4, 50))
    mask = np.ones_like(ids)
    mask[0, 20:] = 0
    expected, got = (one.infer(Batch(ids, mask))[mask == 1] for one in (OnnxBackend(traced, threads=1), backend))
    assert 1e-5 < np.abs(got - expected).mean() < 0.1 * expected.std()
    weights = {one.name: one for one in onnx.load(str(target)).graph.initializer}
    packed = [one for one in weights.values() if one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    assert len([one for one in packed if np.prod(one.dims) >= 32 * 32]) == PRODUCTS
    assert backend.runtime == f"{runtime}-int8"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_heads_product_stays_in_fp32(traced: Path, runtime: str) -> None:
    target, _ = quantized(traced, runtime)
    graph = onnx.load(str(target)).graph
    shapes = {one.name: (tuple(one.dims), one.data_type) for one in graph.initializer}
    (head,) = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in shapes]
    assert shapes[head.input[1]] == ((32, CLASSES), onnx.TensorProto.FLOAT)


def test_neighbours_do_not_move_onnxruntimes_scores(traced: Path) -> None:
    backend = quantized(traced, "onnxruntime")[1]
    ids = np.random.default_rng(1).integers(4, 200, (6, 30))
    together = backend.infer(Batch(ids, np.ones_like(ids)))
    for row in range(len(ids)):
        alone = backend.infer(Batch(ids[row : row + 1], np.ones_like(ids[:1])))[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-5)


def test_it_leaves_the_root_logger_alone(traced: Path) -> None:
    code = f"""
import logging
from pathlib import Path
from reward_service.training.quantize import quantize_for_openvino
quantize_for_openvino(Path({str(traced)!r}), Path({str(traced.with_name("int8.onnx"))!r}), outputs={CLASSES})
logging.getLogger("httpx").info("a request")
print(logging.getLevelName(logging.root.level), logging.root.handlers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("WARNING []")
    assert "a request" not in done.stderr
