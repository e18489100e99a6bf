import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.errors import StoreError
from reward_service.registry.store import Published
from reward_service.runtimes import load as loading
from reward_service.runtimes.load import load_backend
from reward_service.training.export import export

Resolve = Callable[[str], Published]
BATCHING = Batching(threads=1)


def load(published: Published, runtime: str, precision: str | None = None, device: str = "cpu") -> Backend:
    wanted = ModelSettings.model_validate(
        {"name": published.name, "runtime": runtime, "precision": precision, "device": device}
    )
    return load_backend(published, wanted, BATCHING)


def change_record(published: Published, name: str, **changes: object) -> None:
    path = published.export_path(name) / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


ELSEWHERE = {"processor": "abacus", "libraries": {"onnxruntime": "0"}}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runtimes that were compared while loading."""
    names: list[str] = []
    check = loading.Gate.check

    def noting(self: loading.Gate, backend: Backend, precision: Precision) -> None:
        names.append(backend.runtime)
        check(self, backend, precision)

    monkeypatch.setattr(loading.Gate, "check", noting)
    return names


def test_fp32_is_the_default_of_a_named_runtime(resolve: Resolve, checked: list[str]) -> None:
    published = resolve("relevance")
    assert [load(published, runtime).runtime for runtime in ("torch", "onnxruntime")] == [
        "torch-fp32",
        "onnxruntime-fp32",
    ]
    assert checked == []  # Torch is the reference, and the export was compared here.


def test_openvino_in_fp32_is_compared_where_it_has_no_export(resolve: Resolve, checked: list[str]) -> None:
    published = resolve("factuality")
    assert load(published, "openvino").runtime == "openvino-fp32"
    assert checked == ["openvino-fp32"]
    export(published, Runtime.OPENVINO, Precision.FP32)
    assert load(published, "openvino").runtime == "openvino-fp32"
    assert checked == ["openvino-fp32"]


@pytest.mark.parametrize(
    ("runtime", "precision"), [("torch", "bf16"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8")]
)
def test_lower_precision_needs_an_export(resolve: Resolve, runtime: str, precision: str) -> None:
    with pytest.raises(
        StoreError, match=f"run `reward-service export relevance --runtime {runtime} --precision {precision}`"
    ):
        load(resolve("relevance"), runtime, precision)


@pytest.mark.parametrize(("runtime", "precision"), [("torch", "bf16"), ("onnxruntime", "int8"), ("openvino", "int8")])
def test_lower_precision_is_served_after_an_export(
    resolve: Resolve, checked: list[str], runtime: str, precision: str
) -> None:
    published = resolve("factuality")
    export(published, Runtime(runtime), Precision(precision))
    assert load(published, runtime, precision).runtime == f"{runtime}-{precision}"
    assert checked == []


def test_what_was_compared_elsewhere_is_compared_here(resolve: Resolve, checked: list[str]) -> None:
    published = resolve("relevance")
    change_record(published, "onnxruntime-fp32", made_on=ELSEWHERE)
    assert load(published, "onnxruntime").runtime == "onnxruntime-fp32"
    assert checked == ["onnxruntime-fp32"]


def test_what_differs_here_is_not_served(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    published = resolve("relevance")
    change_record(published, "onnxruntime-fp32", made_on=ELSEWHERE)
    infer = OnnxBackend.infer
    monkeypatch.setattr(OnnxBackend, "infer", lambda self, batch: infer(self, batch) * 1.1)
    with pytest.raises(StoreError, match="on this machine onnxruntime-fp32 differs from torch"):
        load(published, "onnxruntime")


def test_the_file_that_another_export_reads_is_verified(resolve: Resolve) -> None:
    published = resolve("relevance")
    export(published, Runtime.OPENVINO, Precision.FP32)
    path = published.export_path("onnxruntime-fp32") / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match=r"model\.onnx: changed"):
        load(published, "openvino")


def test_a_missing_extra_is_named(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "is_installed", lambda runtime: False)
    for runtime, extra in (("torch", "service-torch"), ("openvino", "openvino")):
        with pytest.raises(
            StoreError, match=rf"{runtime} is not installed: pip install 'fine-grained-rlhf\[{extra}\]'"
        ):
            load(resolve("relevance"), runtime)


def test_a_provider_that_is_missing_is_named(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reward_service.backends.onnx_backend.onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(
        StoreError, match=r"relevance@.*: onnxruntime in fp32: .* cannot use device 'cuda:1'; .*CPUExecutionProvider"
    ):
        load(resolve("relevance"), "onnxruntime", device="cuda:1")


def test_a_graph_that_cannot_be_read_is_told(resolve: Resolve, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        with pytest.raises(RuntimeError):
            loading.open_runtime(resolve("relevance"), runtime, Precision.FP32, tmp_path / "model.onnx", threads=1)
    with pytest.raises(ValueError, match="on the CPU, not on cuda"):
        loading.open_runtime(
            resolve("relevance"), Runtime.OPENVINO, Precision.FP32, tmp_path / "x", threads=1, device="cuda"
        )
