import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.errors import StoreError
from reward_service.registry.store import Published
from reward_service.runtimes import choose
from reward_service.runtimes.choose import candidates, choose_division
from reward_service.runtimes.gate import Gate
from reward_service.training.export import export

Resolve = Callable[[str], Published]
BATCHING = Batching(threads=1)


def chosen(published: Published, batching: Batching = BATCHING, **wanted: str) -> str:
    return choose_division(published, settings(published, **wanted), batching).runtime


def settings(published: Published, **wanted: str) -> ModelSettings:
    return ModelSettings.model_validate({"name": published.name, **wanted})


class Speeds:
    """Tokens a second that are told in place of measured ones; counts the measurements."""

    def __init__(self, rates: dict[str, list[float]]) -> None:
        self.rates = rates
        self.asked: list[str] = []

    def __call__(self, gate: Gate, backend: Backend, max_tokens: int) -> float:
        rates = self.rates[backend.runtime]
        self.asked.append(backend.runtime)
        return rates[(self.asked.count(backend.runtime) - 1) % len(rates)]


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Speeds:
    told = Speeds({"torch-fp32": [1.0], "onnxruntime-fp32": [2.0], "openvino-fp32": [3.0]})
    monkeypatch.setattr(Gate, "measure", lambda gate, lanes, tokens: told(gate, lanes[0], tokens))
    return told


def test_a_real_measurement_ends_in_one_of_the_candidates(resolve: Resolve, caplog: pytest.LogCaptureFixture) -> None:
    published = resolve("relevance")
    caplog.set_level(logging.INFO)
    name = chosen(published)
    assert name in {"torch-fp32", "onnxruntime-fp32", "openvino-fp32"}
    assert f"chose {name} of (tokens/s): {name} " in caplog.text
    (choice,) = json.loads((published.exports_path / "choices.json").read_text()).values()
    assert choice["runtime"] == max(choice["tokens_per_s"], key=choice["tokens_per_s"].get) == name
    assert choice["conditions"]["threads"] == 1


def test_the_fastest_by_the_median_is_chosen(resolve: Resolve, speeds: Speeds) -> None:
    speeds.rates = {"torch-fp32": [1.0], "onnxruntime-fp32": [5.0], "openvino-fp32": [4.0, 99.0, 4.0]}
    assert chosen(resolve("relevance")) == "onnxruntime-fp32"
    # In turn, so that what else the machine does meets all.
    assert speeds.asked[:3] == speeds.asked[3:6]
    assert set(speeds.asked[:3]) == set(speeds.rates)


def test_a_choice_is_remembered_until_something_changes(resolve: Resolve, speeds: Speeds) -> None:
    published = resolve("relevance")
    assert chosen(published) == "openvino-fp32"
    measured = len(speeds.asked)
    speeds.rates["torch-fp32"] = [9.0]
    assert chosen(published) == "openvino-fp32"
    assert len(speeds.asked) == measured
    assert chosen(published, Batching(threads=2)) == "torch-fp32"
    export(published, Runtime.ONNXRUNTIME, Precision.INT8)
    speeds.rates["onnxruntime-int8"] = [10.0]
    assert chosen(published) == "onnxruntime-int8"
    assert chosen(published, precision="fp32") == "openvino-fp32"  # Remembered of the same three.


def test_what_does_not_pass_here_is_not_chosen(
    resolve: Resolve, speeds: Speeds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    published = resolve("relevance")
    speeds.rates["onnxruntime-fp32"] = [100.0]
    infer = OnnxBackend.infer
    monkeypatch.setattr(OnnxBackend, "infer", lambda self, batch: infer(self, batch) * 1.1)
    assert chosen(published) == "openvino-fp32"
    assert "onnxruntime-fp32 is not used: relevance@" in caplog.text
    (choice,) = json.loads((published.exports_path / "choices.json").read_text()).values()
    assert "differs from torch" in choice["refused"]["onnxruntime-fp32"]


def test_only_exported_precisions_are_candidates(resolve: Resolve) -> None:
    published = resolve("factuality")
    names = {candidate.name for candidate in candidates(published, settings(published))}
    assert names == {"torch-fp32", "onnxruntime-fp32", "openvino-fp32"}
    export(published, Runtime.TORCH, Precision.BF16)
    export(published, Runtime.OPENVINO, Precision.INT8)
    names |= {"torch-bf16", "openvino-int8"}
    assert {candidate.name for candidate in candidates(published, settings(published))} == names
    (low,) = candidates(published, settings(published, precision="bf16"))
    assert low.name == "torch-bf16"
    on_gpu = {candidate.name for candidate in candidates(published, settings(published, device="cuda"))}
    assert on_gpu == {"torch-fp32", "torch-bf16", "onnxruntime-fp32"}


def test_without_torch_exports_alone_are_chosen_from(
    resolve: Resolve, speeds: Speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "is_installed", lambda runtime: runtime is Runtime.ONNXRUNTIME)
    assert chosen(resolve("relevance")) == "onnxruntime-fp32"
    assert set(speeds.asked) == {"onnxruntime-fp32"}


@pytest.mark.parametrize(
    ("installed", "precision", "told"),
    [
        ({Runtime.TORCH}, "bf16", "run `reward-service export relevance --runtime torch --precision bf16`"),
        (set(Runtime), "int8", "run `reward-service export relevance --runtime openvino --precision int8`"),
        ({Runtime.TORCH}, "int8", "no runtime that is installed computes in int8 on cpu"),
        (set(), "fp32", "no runtime that is installed computes in fp32 on cpu"),
    ],
)
def test_nothing_to_choose_from_is_an_error(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch, installed: set[Runtime], precision: str, told: str
) -> None:
    monkeypatch.setattr(choose, "is_installed", lambda runtime: runtime in installed)
    with pytest.raises(StoreError, match=told):
        chosen(resolve("relevance"), precision=precision)


def test_a_device_that_nothing_can_use_is_told_with_every_reason(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(
        "reward_service.backends.onnx_backend.onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(StoreError, match=r"no runtime can be used: .*device 'cuda'.*device 'cuda'"):
        chosen(resolve("relevance"), device="cuda")


def test_a_changed_file_is_refused_and_not_passed_over(resolve: Resolve) -> None:
    published = resolve("relevance")
    path = published.export_path("onnxruntime-fp32") / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match=r"model\.onnx: changed"):
        chosen(published)


def test_a_store_that_cannot_be_written_is_measured_again(
    resolve: Resolve, speeds: Speeds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(f"read-only: {path}")

    monkeypatch.setattr(choose.model_files, "write_durably", refuse)
    assert chosen(resolve("relevance")) == "openvino-fp32"
    measured = len(speeds.asked)
    assert chosen(resolve("relevance")) == "openvino-fp32"
    assert len(speeds.asked) == 2 * measured
    assert "the next start measures again: read-only" in caplog.text


def test_what_is_measured_is_what_is_served(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Sequence[Backend]] = []

    def measure(gate: Gate, lanes: Sequence[Backend], tokens: int) -> float:
        measured.append(lanes)
        return 1.0 + (lanes[0].runtime == "onnxruntime-fp32")

    monkeypatch.setattr(Gate, "measure", measure)
    published = resolve("relevance")
    division = choose_division(published, settings(published), Batching(threads=2))
    assert {len(lanes) for lanes in measured} == {2}
    assert division.lanes in measured, "and they are not opened again"
    (choice,) = json.loads((published.exports_path / "choices.json").read_text()).values()
    assert choice["conditions"]["lanes"] == 2, "a choice among undivided backends has another key"


def test_a_runtime_whose_lanes_cannot_be_opened_is_not_chosen(
    resolve: Resolve, speeds: Speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(backend: OnnxBackend) -> None:
        raise RuntimeError("no memory for a second session")

    closed: list[str] = []
    monkeypatch.setattr(OnnxBackend, "lanes", refuse)
    monkeypatch.setattr(OnnxBackend, "close", lambda backend: closed.append(backend.runtime))
    speeds.rates["onnxruntime-fp32"] = [100.0]
    published = resolve("relevance")
    assert chosen(published, Batching(threads=2)) == "openvino-fp32"
    assert closed == ["onnxruntime-fp32"]
    (choice,) = json.loads((published.exports_path / "choices.json").read_text()).values()
    assert choice["refused"] == {"onnxruntime-fp32": "no memory for a second session"}
