"""The torch backend on a CUDA device, against itself on the CPU in fp32."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from reward_proto.models import ModelKind
from reward_service.backends.torch_backend import TorchBackend
from reward_service.domain import Batch
from reward_service.errors import ModelFailedError

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = "cuda"
WORDS = 500
POSITIONS = 512
SPANS, WHOLE = ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_REGRESSION
# Of probabilities: fp32 differs by the order of sums alone; bf16 keeps 8 bits of each number.
TOLERANCES = {"fp32": 1e-5, "bf16": 0.03}
LITTLE_BYTES = 512 << 20
"""So much of the device's memory does the test of memory leave."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[ModelKind, Path]:
    """A span model and a regressor of MiniLM's shape, whose scores differ visibly."""
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=POSITIONS,
        num_labels=2,
        initializer_range=0.05,
    )
    folders = {}
    for kind, architecture in ((SPANS, BertForTokenClassification), (WHOLE, BertForSequenceClassification)):
        torch.manual_seed(0)
        config.num_labels = 1 if kind is WHOLE else 2
        folders[kind] = tmp_path_factory.mktemp("model")
        architecture(config).eval().save_pretrained(folders[kind])
    return folders


@pytest.fixture
def all_memory() -> Iterator[None]:
    """The process may have the whole device again afterwards."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def make_batch(rows: int, longest: int, seed: int = 0) -> Batch:
    """Random inputs of unlike lengths, padded."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, rows)
    lengths[0] = longest
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return Batch(rng.integers(1, WORDS, (rows, longest)) * mask, mask)


def probabilities(logits: NDArray[np.float32], batch: Batch) -> NDArray[np.float32]:
    """Of the first class, at real tokens; a regressor's scores as they are."""
    if logits.ndim == 2:
        return logits[:, 0]
    real = logits[batch.attention_mask.astype(bool)]
    return 1 / (1 + np.exp(real[:, 1] - real[:, 0]))


@pytest.mark.parametrize("kind", [SPANS, WHOLE])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_scores_are_those_of_the_cpu_in_fp32(files: dict[ModelKind, Path], kind: ModelKind, precision: str) -> None:
    batch = make_batch(24, 300)
    expected = TorchBackend(files[kind], kind, threads=1).infer(batch)
    backend = TorchBackend(files[kind], kind, threads=1, device=DEVICE, precision=precision)
    assert backend.runtime == f"torch-{precision}"
    logits = backend.infer(batch)
    backend.close()
    assert logits.dtype == np.float32
    wanted = probabilities(expected, batch)
    assert wanted.std() > 0.01
    difference = float(np.abs(probabilities(logits, batch) - wanted).max())
    assert difference < TOLERANCES[precision]
    print(f"{kind} {precision}: largest difference {difference:.2g}")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_score_hardly_depends_on_its_batch(files: dict[ModelKind, Path], precision: str) -> None:
    batch = make_batch(16, 200)
    backend = TorchBackend(files[SPANS], SPANS, threads=1, device=DEVICE, precision=precision)
    together = backend.infer(batch)
    for row in range(16):
        length = int(batch.attention_mask[row].sum())
        alone = Batch(batch.input_ids[row : row + 1, :length], batch.attention_mask[row : row + 1, :length])
        one = probabilities(backend.infer(alone), alone)
        wanted = probabilities(together[row : row + 1, :length], alone)
        np.testing.assert_allclose(one, wanted, atol=TOLERANCES[precision])
    backend.close()


def test_closing_gives_the_memory_back(files: dict[ModelKind, Path]) -> None:
    batch = make_batch(64, 256)
    TorchBackend(files[SPANS], SPANS, threads=1, device=DEVICE).infer(batch)  # cuBLAS keeps a workspace of its own
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    backend = TorchBackend(files[SPANS], SPANS, threads=1, device=DEVICE)
    weights = torch.cuda.memory_allocated() - before[0]
    assert weights > 40 << 20
    for _ in range(3):
        backend.infer(batch)
        assert torch.cuda.memory_allocated() - before[0] == weights, "a batch leaves nothing behind"
    backend.close()
    gc.collect()
    assert torch.cuda.memory_allocated() == before[0]
    assert torch.cuda.memory_reserved() <= before[1]


@pytest.mark.usefixtures("all_memory")
def test_a_batch_too_large_for_the_memory_fails_alone(files: dict[ModelKind, Path]) -> None:
    small = make_batch(4, 64)
    backend = TorchBackend(files[SPANS], SPANS, threads=1, device=DEVICE)
    expected = backend.infer(small)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((before[1] + LITTLE_BYTES) / whole)
    with pytest.raises(ModelFailedError, match="2000, 512") as caught:
        backend.infer(make_batch(2000, 512))
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    # While the error is still held, as it is while the batch's items are run one by one.
    assert torch.cuda.memory_allocated() == before[0]
    assert torch.cuda.memory_reserved() <= before[1]
    np.testing.assert_array_equal(backend.infer(small), expected)
    backend.close()


def test_a_fault_of_a_kernel_is_a_lost_device(files: dict[ModelKind, Path]) -> None:
    """In a process of its own: afterwards it can use the device no more."""
    code = f"""
import numpy as np
from pathlib import Path
from reward_proto.models import ModelKind
from reward_service.backends.torch_backend import TorchBackend
from reward_service.core.backend import DeviceLostError
from reward_service.domain import Batch
backend = TorchBackend(Path({str(files[SPANS])!r}), ModelKind.TOKEN_CLASSIFICATION, threads=1, device={DEVICE!r})
for ids in (np.full((1, 3), 10**6), np.ones((1, 3), dtype=np.int64)):
    try:
        backend.infer(Batch(ids, np.ones_like(ids)))
    except DeviceLostError as error:
        print(error, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"{DEVICE} is lost to this process"] * 2, done.stderr[-2000:]
