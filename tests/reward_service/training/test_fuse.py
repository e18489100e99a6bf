from pathlib import Path

import numpy as np
import onnx
import pytest

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.domain import Batch
from reward_service.registry.architecture import read_config
from reward_service.registry.store import Published, Store
from reward_service.training.fuse import count_fused, fuse
from reward_service.training.trace import write_onnx

LAYERS = 2


@pytest.fixture
def published(tiny_store: Path) -> Published:
    return Store(tiny_store).resolve("relevance")


@pytest.fixture
def traced(published: Published, tmp_path: Path) -> Path:
    write_onnx(published.path, ModelKind.TOKEN_CLASSIFICATION, tmp_path / "traced.onnx")
    return tmp_path / "traced.onnx"


def test_every_layer_is_fused_and_computes_the_same(published: Published, traced: Path, tmp_path: Path) -> None:
    target = tmp_path / "fused.onnx"
    fused = fuse(traced, target, read_config(published.path))
    assert fused == count_fused(target)
    assert (fused["Attention"], fused["BiasGelu"], fused["SkipLayerNormalization"]) == (LAYERS, LAYERS, 2 * LAYERS)
    # What they stand for is gone: softmax, the error function of GELU, and two of three products a layer.
    types = [node.op_type for node in onnx.load(str(target)).graph.node]
    before = [node.op_type for node in onnx.load(str(traced)).graph.node]
    assert {"Softmax", "Erf"} <= set(before)
    assert not {"Softmax", "Erf"} & set(types)
    assert types.count("MatMul") == before.count("MatMul") - 5 * LAYERS
    ids = np.random.default_rng(0).integers(4, 200, (3, 40))
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    one, two = (OnnxBackend(path, threads=1).infer(Batch(ids, mask)) for path in (traced, target))
    np.testing.assert_allclose(one[mask == 1], two[mask == 1], atol=1e-5)


def test_batch_and_length_stay_free(published: Published, traced: Path, tmp_path: Path) -> None:
    fuse(traced, tmp_path / "fused.onnx", read_config(published.path))
    for value in onnx.load(str(tmp_path / "fused.onnx")).graph.input:
        assert [axis.dim_param for axis in value.type.tensor_type.shape.dim] == ["batch", "length"]


def test_a_graph_that_the_optimizer_fails_on_is_taken_as_it_is(
    traced: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A number of heads that does not divide the width makes no sense to it.
    fused = fuse(traced, tmp_path / "fused.onnx", {"num_attention_heads": "two", "hidden_size": 32})
    assert (tmp_path / "fused.onnx").read_bytes() == traced.read_bytes()
    assert "Attention" not in fused
    assert "without fused operators" in caplog.text
