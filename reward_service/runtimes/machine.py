"""What a runtime's speed and numbers depend on besides the model: the processor and the versions of libraries."""

import os
import platform
from contextlib import suppress
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path

from reward_service.config import Runtime
from reward_service.registry.exports import Environment

PACKAGES: dict[Runtime, tuple[str, ...]] = {
    Runtime.TORCH: ("torch", "transformers"),
    Runtime.ONNXRUNTIME: ("onnxruntime",),
    Runtime.OPENVINO: ("openvino",),
}
"""Which packages' versions change a runtime's numbers."""

EXTRAS: dict[Runtime, str] = {
    Runtime.TORCH: "service-torch",
    Runtime.ONNXRUNTIME: "service",
    Runtime.OPENVINO: "openvino",
}
"""Which extra brings each runtime."""

_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")
_CPU_INFO = Path("/proc/cpuinfo")
_GPU_INFO = Path("/proc/driver/nvidia/gpus")


def is_installed(runtime: Runtime) -> bool:
    """Whether a runtime's packages are there; nothing is imported."""
    return all(util.find_spec(package) is not None for package in PACKAGES[runtime])


def environment(runtime: Runtime, device: str) -> Environment:
    """Where a runtime would compute now.

    Args:
        runtime: An installed one.
        device: `cpu`, `cuda` or `cuda:N`.
    """
    processor = describe_cpu() if device == "cpu" else describe_gpus()
    return Environment(processor=processor, libraries={name: _version(name) for name in PACKAGES[runtime]})


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def describe_cpu() -> str:
    """The CPU's name and those of its instructions that runtimes choose kernels by."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    if _CPU_INFO.exists():
        lines = dict(_pair(line) for line in reversed(_CPU_INFO.read_text(encoding="utf-8").splitlines()))
        name = lines.get("model name", name)
        flags = frozenset(lines.get("flags", lines.get("Features", "")).split())
    return " ".join([name, *(flag for flag in _INSTRUCTIONS if flag in flags)])


@lru_cache
def describe_gpus() -> str:
    """The names of the machine's NVIDIA GPUs; nothing more where the driver does not tell."""
    found = sorted(_GPU_INFO.glob("*/information")) if _GPU_INFO.is_dir() else []
    models = [dict(_pair(line) for line in path.read_text().splitlines()).get("Model", "") for path in found]
    return ", ".join(["cuda", *models])


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "unknown"
