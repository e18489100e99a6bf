from importlib import metadata, util
from pathlib import Path

import pytest

from reward_service.config import Runtime
from reward_service.runtimes import machine
from reward_service.runtimes.machine import describe_cpu, describe_gpus, environment, is_installed


@pytest.fixture(autouse=True)
def forget():
    yield
    describe_cpu.cache_clear()
    describe_gpus.cache_clear()


def test_the_environment_names_the_libraries_versions() -> None:
    here = environment(Runtime.ONNXRUNTIME, "cpu")
    assert here.libraries == {"onnxruntime": metadata.version("onnxruntime")}
    assert here == environment(Runtime.ONNXRUNTIME, "cpu")
    assert set(environment(Runtime.TORCH, "cpu").libraries) == {"torch", "transformers"}
    assert environment(Runtime.ONNXRUNTIME, "cuda").processor.startswith("cuda")


def test_a_build_of_another_name_has_a_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "onnxruntime-gpu":
            return "9.9"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "version", version)
    assert environment(Runtime.ONNXRUNTIME, "cpu").libraries == {"onnxruntime": "9.9"}
    assert environment(Runtime.OPENVINO, "cpu").libraries == {"openvino": "unknown"}


def test_the_cpu_is_its_name_and_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Abacus 3000\nflags\t\t: fpu avx2 amx_bf16x avx512_vnni\n\n"
        "processor\t: 1\nmodel name\t: Abacus 3000\nflags\t\t: fpu avx2\n"
    )
    monkeypatch.setattr(machine, "_CPU_INFO", info)
    describe_cpu.cache_clear()
    assert describe_cpu() == "Abacus 3000 avx2 avx512_vnni"
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "none")
    describe_cpu.cache_clear()
    assert describe_cpu()


def test_gpus_are_named_where_the_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slot in ("1", "0"):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "information").write_text(f"Model: \t\t NVIDIA {slot}\nIRQ: 1\n")
    monkeypatch.setattr(machine, "_GPU_INFO", tmp_path)
    describe_gpus.cache_clear()
    assert describe_gpus() == "cuda, NVIDIA 0, NVIDIA 1"


def test_what_is_installed_is_found_without_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed(Runtime.ONNXRUNTIME)
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "transformers" else object())
    assert not is_installed(Runtime.TORCH)
    assert is_installed(Runtime.OPENVINO)
