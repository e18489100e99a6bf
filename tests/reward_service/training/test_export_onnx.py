import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_proto.models import ModelKind
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.domain import Batch, Encoded, Head, Read, Span, TextItem
from reward_service.errors import ParityError
from reward_service.registry.files import sha256_of
from reward_service.registry.store import Store
from reward_service.training import export_onnx as export_module
from reward_service.training.export_onnx import TOLERANCE, compare, export_onnx


def copied(trained: tuple[Path, Path], name: str, tmp_path: Path) -> tuple[Store, object]:
    source = Store(trained[1]).resolve(name)
    store = Store(tmp_path / "store")
    return store, store.publish(source.path, source.manifest)


@pytest.mark.parametrize("name", ["factuality", "preference"])
def test_an_export_agrees_and_says_by_how_much(trained: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    store, published = copied(trained, name, tmp_path)
    path, parity = export_onnx(store, published)
    assert parity.max_abs_diff <= TOLERANCE
    report = json.loads((path / "export.json").read_text())
    assert report["max_abs_diff"] == parity.max_abs_diff >= report["mean_abs_diff"]
    assert report["label_flips"] == 0
    assert report["tolerance"] == 1e-4
    # 16 held-out questions with four answers each, of two sentences.
    assert report["n_segments"] == (128 if name == "factuality" else 64)
    assert report["files"] == {"model.onnx": sha256_of(published.onnx_path())}
    assert store.resolve(name).version == published.version


def test_batch_size_and_length_are_free(trained: tuple[Path, Path], tmp_path: Path) -> None:
    store, published = copied(trained, "factuality", tmp_path)
    export_onnx(store, published)
    backend = OnnxBackend(published.onnx_path(), threads=1)
    for items, tokens in ((1, 1), (3, 40), (5, 96)):
        shape = (items, tokens)
        batch = Batch(np.full(shape, 5), np.ones(shape, dtype=np.int64))
        assert backend.infer(batch).shape == (items, tokens, 2)


def test_a_model_that_differs_is_not_exported(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, published = copied(trained, "factuality", tmp_path)

    class Off(OnnxBackend):
        def infer(self, batch: Batch) -> NDArray[np.float32]:
            return super().infer(batch) + np.float32([0.0, 1.0])

    monkeypatch.setattr(export_module, "OnnxBackend", Off)
    with pytest.raises(ParityError, match=r"factuality@.* differs from torch"):
        export_onnx(store, published)
    assert not published.export_path("onnxruntime-fp32").exists()


def test_the_callers_texts_are_compared(trained: tuple[Path, Path], tmp_path: Path) -> None:
    store, published = copied(trained, "factuality", tmp_path)
    fields = {"question": "what", "context": "thing"}
    long = "the colour is red. " * 40
    items = [TextItem("", "It is red. It is blue.", fields), TextItem("", " ", fields), TextItem("", long, fields)]
    # Two sentences; a blank text has nothing to compare, and the last is too long for the model.
    assert export_onnx(store, published, items)[1].n_segments == 2
    with pytest.raises(ParityError, match="no text to compare"):
        export_onnx(store, published, items[1:])


def test_a_model_without_texts_of_its_own_is_compared_on_built_in_ones(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    source = Store(trained[1]).resolve("preference")
    files = tmp_path / "files"
    files.mkdir()
    for path in source.path.iterdir():
        if path.name != "parity.jsonl":
            (files / path.name).write_bytes(path.read_bytes())
    store = Store(tmp_path / "store")
    manifest = source.manifest.model_copy(update={"template": "{prompt} {anything}"})
    parity = export_onnx(store, store.publish(files, manifest))[1]
    assert parity.n_segments > 3


class Fixed:
    """Gives the same logits to every item."""

    runtime = "fixed"

    def __init__(self, logits: list[float]) -> None:
        self.logits = np.array(logits, dtype=np.float32)

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        return np.broadcast_to(self.logits, (*batch.input_ids.shape, len(self.logits)))

    def close(self) -> None: ...


def test_figures_by_hand() -> None:
    head = Head(ModelKind.TOKEN_CLASSIFICATION, ("error", "ok"), "ok")
    item = Encoded(np.array([1, 2, 3]), (Read(np.array([0, 1]), (Span(0, 1), Span(2, 3))),))
    one = replace(item, reads=(Read(np.array([2]), (Span(0, 1),)),))
    # P(ok) is 1/4 and 3/4.
    parity = compare([head], Fixed([np.log(3), 0.0]), Fixed([0.0, np.log(3)]), [item, one], 0)
    assert parity.max_abs_diff == pytest.approx(0.5)
    assert parity.mean_abs_diff == pytest.approx(0.5)
    assert (parity.label_flips, parity.n_segments) == (3, 3)
