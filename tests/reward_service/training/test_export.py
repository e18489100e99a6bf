import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.backends.openvino_backend import OpenVinoBackend
from reward_service.config import Precision, Runtime
from reward_service.domain import Batch, TextItem
from reward_service.errors import ConfigError, ParityError, StoreError
from reward_service.registry.exports import read_reference
from reward_service.registry.files import sha256_of
from reward_service.registry.store import Published, Store
from reward_service.training import export as exporting
from reward_service.training.export import export, offered


def copied(trained: tuple[Path, Path], name: str, tmp_path: Path) -> Published:
    source = Store(trained[1]).resolve(name)
    return Store(tmp_path / "store").publish(source.path, source.manifest)


@pytest.mark.parametrize("name", ["factuality", "preference"])
def test_an_export_agrees_and_says_by_how_much(trained: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    published = copied(trained, name, tmp_path)
    path, record = export(published)
    report = json.loads((path / "export.json").read_text())
    figures = report["parity"][name]
    assert record.parity[name].max_abs_diff == figures["max_abs_diff"] >= figures["mean_abs_diff"]
    assert figures["max_allowed"] == 1e-4
    assert figures["max_abs_diff"] <= 1e-4
    assert (figures["label_flips"], figures["label_flip_share"]) == (0, 0)
    assert figures["rank_correlation"] > 0.99
    # 16 held-out questions with four answers each, of two sentences.
    assert report["n_texts"] == 64
    assert figures["n_scores"] == (128 if name == "factuality" else 64)
    files = {file.name: sha256_of(file) for file in path.iterdir() if file.name != "export.json"}
    assert report["files"] == files
    assert sorted(files) == ["model.onnx", "reference.jsonl"]
    assert len(read_reference(path / "reference.jsonl")) == 32
    assert Store(tmp_path / "store").resolve(name).version == published.version


def test_batch_size_and_length_are_free(trained: tuple[Path, Path], tmp_path: Path) -> None:
    published = copied(trained, "factuality", tmp_path)
    export(published)
    for backend in (OnnxBackend(published.onnx_path(), threads=1), OpenVinoBackend(published.onnx_path(), threads=1)):
        for items, tokens in ((1, 1), (3, 40), (5, 96)):
            shape = (items, tokens)
            batch = Batch(np.full(shape, 5), np.ones(shape, dtype=np.int64))
            assert backend.infer(batch).shape == (items, tokens, 2)


@pytest.mark.parametrize(
    ("runtime", "precision", "files"),
    [
        (Runtime.ONNXRUNTIME, Precision.INT8, ["model.onnx", "reference.jsonl"]),
        (Runtime.OPENVINO, Precision.INT8, ["model.onnx", "reference.jsonl"]),
        (Runtime.OPENVINO, Precision.FP32, ["reference.jsonl"]),
        (Runtime.TORCH, Precision.BF16, ["reference.jsonl"]),
    ],
)
def test_every_runtime_and_precision_passes_the_gate(
    trained: tuple[Path, Path], tmp_path: Path, runtime: Runtime, precision: Precision, files: list[str]
) -> None:
    published = copied(trained, "factuality", tmp_path)
    path, record = export(published, runtime, precision)
    assert path.name == record.runtime == f"{runtime}-{precision}"
    assert sorted(record.files) == files
    # Lower precision changes scores, and by less than a class is worth.
    figures = record.parity["factuality"]
    assert (figures.max_abs_diff > 1e-6) is (precision is not Precision.FP32)
    assert figures.max_abs_diff < figures.max_allowed < 0.5
    has_file = "model.onnx" in files
    assert record.reads == ("" if runtime is Runtime.TORCH else path.name if has_file else "onnxruntime-fp32")
    # What OpenVINO reads in fp32 was missing, and is made with the same care.
    reads_another = runtime is Runtime.OPENVINO and not has_file
    assert published.export_path("onnxruntime-fp32").is_dir() is reads_another


def test_a_model_that_differs_is_not_exported(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = copied(trained, "factuality", tmp_path)
    infer = OnnxBackend.infer

    def off(self: OnnxBackend, batch: Batch) -> NDArray[np.float32]:
        return infer(self, batch) + np.array([0.0, 9.0], dtype=np.float32)

    monkeypatch.setattr(OnnxBackend, "infer", off)
    for precision in (Precision.FP32, Precision.INT8):
        with pytest.raises(ParityError, match=r"factuality@.* differs from torch in factuality: .* is allowed"):
            export(published, Runtime.ONNXRUNTIME, precision)
    assert not published.exports_path.exists()


def test_a_graph_that_ignores_padding_is_not_exported(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = copied(trained, "preference", tmp_path)
    infer = OnnxBackend.infer

    def blind(self: OnnxBackend, batch: Batch) -> NDArray[np.float32]:
        return infer(self, Batch(batch.input_ids, np.ones_like(batch.attention_mask)))

    monkeypatch.setattr(OnnxBackend, "infer", blind)
    fields = {"question": "what", "context": "thing"}
    # A batch of the service may be padded by a twentieth; the shorter ones get one pad.
    text = "the colour is amber and red , " * 4
    items = [TextItem("", text + end, fields) for end in ("it", "it", "it is")]
    with pytest.raises(ParityError, match="differs from torch"):
        export(published, items=items)


def test_the_callers_texts_are_compared(trained: tuple[Path, Path], tmp_path: Path) -> None:
    published = copied(trained, "factuality", tmp_path)
    fields = {"question": "what", "context": "thing"}
    long = "the colour is red. " * 40
    items = [TextItem("", "It is red. It is blue.", fields), TextItem("", " ", fields), TextItem("", long, fields)]
    # Two sentences; a blank text has nothing to compare, and the last is too long for the model.
    path, record = export(published, items=items)
    assert record.parity["factuality"].n_scores == 2
    (kept,) = read_reference(path / "reference.jsonl")
    assert kept.item == items[0]
    with pytest.raises(ParityError, match="no text to compare"):
        export(published, items=items[1:])


def test_a_model_without_texts_of_its_own_is_compared_on_built_in_ones(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    source = Store(trained[1]).resolve("preference")
    files = tmp_path / "files"
    files.mkdir()
    for path in source.path.iterdir():
        if path.name != "parity.jsonl":
            (files / path.name).write_bytes(path.read_bytes())
    manifest = source.manifest.model_copy(update={"template": "{prompt} {anything}"})
    record = export(Store(tmp_path / "store").publish(files, manifest))[1]
    assert record.parity["preference"].n_scores > 3


def test_int8_is_judged_on_texts_that_it_was_not_calibrated_on(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = copied(trained, "factuality", tmp_path)
    seen = []
    quantize = exporting.quantize_for_onnxruntime
    monkeypatch.setattr(
        exporting,
        "quantize_for_onnxruntime",
        lambda *files, texts, **rest: (seen.extend(texts), quantize(*files, texts=texts, **rest)),
    )
    words = ("red", "blue", "green", "amber")
    items = [TextItem("", f"it is {word} .", {"question": "what", "context": "thing"}) for word in words]
    path, record = export(published, Runtime.ONNXRUNTIME, Precision.INT8, items)
    assert record.n_texts == 2
    assert [text.item for text in read_reference(path / "reference.jsonl")] == [items[0], items[2]]
    tokenizer = published.load_tokenizer()
    assert [{"blue", "amber"} & set(tokenizer.decode(item.input_ids.tolist()).split()) for item in seen] == [
        {"blue"},
        {"amber"},
    ]


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [(Runtime.TORCH, Precision.FP32), (Runtime.TORCH, Precision.INT8), (Runtime.ONNXRUNTIME, Precision.BF16)],
)
def test_what_there_is_not_is_refused(
    trained: tuple[Path, Path], tmp_path: Path, runtime: Runtime, precision: Precision
) -> None:
    with pytest.raises(ConfigError, match=f"no export for {runtime} in {precision}"):
        export(copied(trained, "factuality", tmp_path), runtime, precision)


def test_a_missing_extra_is_named(trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "is_installed", lambda runtime: runtime is not Runtime.OPENVINO)
    with pytest.raises(StoreError, match=r"fine-grained-rlhf\[openvino\]"):
        export(copied(trained, "factuality", tmp_path), Runtime.OPENVINO)
    assert {runtime for runtime, _ in offered()} == {Runtime.ONNXRUNTIME, Runtime.TORCH}
