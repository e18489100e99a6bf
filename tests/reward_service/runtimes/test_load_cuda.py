"""Runtimes that the service chooses and compares on a CUDA device, exports having been made on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.registry.store import Published
from reward_service.runtimes.choose import choose_division
from reward_service.runtimes.load import load_backend
from reward_service.runtimes.machine import describe_gpus
from reward_service.training.export import export

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = "cuda"
Resolve = Callable[[str], Published]


def settings(**chosen: str) -> ModelSettings:
    return ModelSettings.model_validate({"name": "relevance", "device": DEVICE, **chosen})


def test_bf16_passes_its_gate_on_the_device(resolve: Resolve) -> None:
    published = resolve("relevance")
    export(published, Runtime.TORCH, Precision.BF16)
    backend = load_backend(published, settings(runtime="torch", precision="bf16"), Batching(threads=1))
    assert backend.runtime == "torch-bf16"
    backend.close()


def test_auto_chooses_among_what_computes_there(resolve: Resolve) -> None:
    published = resolve("relevance")
    export(published, Runtime.TORCH, Precision.BF16)
    backend = choose_division(published, settings(runtime="auto"), Batching(threads=1))
    assert backend.runtime.startswith("torch-")
    backend.close()


@pytest.mark.skipif(not Path("/proc/driver/nvidia/gpus").is_dir(), reason="the driver does not tell")
def test_the_device_is_named() -> None:
    describe_gpus.cache_clear()
    assert torch.cuda.get_device_name(0) in describe_gpus()
