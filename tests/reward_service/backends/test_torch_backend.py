import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification

from reward_proto.models import ModelKind
from reward_service.backends.torch_backend import TorchBackend
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError
from reward_service.registry.store import Store

SPANS = ModelKind.TOKEN_CLASSIFICATION
IDS = np.array([[1, 50, 60, 2], [1, 70, 2, 0]], dtype=np.int64)
BATCH = Batch(IDS, (IDS != 0).astype(np.int64))


@pytest.fixture
def files(tiny_store: Path) -> Path:
    return Store(tiny_store).resolve("relevance").path


def test_gives_the_models_own_logits(files: Path) -> None:
    model = BertForTokenClassification.from_pretrained(files).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS), attention_mask=torch.from_numpy(BATCH.attention_mask)).logits
    logits = TorchBackend(files, SPANS, threads=1).infer(BATCH)
    assert logits.shape == (2, 4, 2)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-6)


def test_dropout_is_off(files: Path) -> None:
    backend = TorchBackend(files, SPANS, threads=1)
    np.testing.assert_array_equal(backend.infer(BATCH), backend.infer(BATCH))


def test_bf16_is_near_fp32_and_says_so(files: Path) -> None:
    backend = TorchBackend(files, SPANS, threads=1, precision="bf16")
    assert backend.runtime == "torch-bf16"
    logits = backend.infer(BATCH)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, TorchBackend(files, SPANS, threads=1).infer(BATCH), atol=0.2)
    backend.close()


def test_a_failing_run_is_model_failed(files: Path) -> None:
    ids = np.full((1, 3), 10**6, dtype=np.int64)
    with pytest.raises(ModelFailedError):
        TorchBackend(files, SPANS, threads=1).infer(Batch(ids, np.ones_like(ids)))


def test_pickled_weights_are_refused(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        TorchBackend(tmp_path, SPANS, threads=1)


def test_an_unknown_precision_is_refused(files: Path) -> None:
    with pytest.raises(ValueError, match="int8"):
        TorchBackend(files, SPANS, threads=1, precision="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused(files: Path) -> None:
    with pytest.raises(ValueError, match="cuda"):
        TorchBackend(files, SPANS, threads=1, device="cuda")
