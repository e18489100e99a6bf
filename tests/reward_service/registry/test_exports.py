import json
from pathlib import Path

import pytest

from reward_service.errors import StoreError
from reward_service.registry.exports import (
    Environment,
    ExportRecord,
    HeadParity,
    ReferenceText,
    read_reference,
    write_export,
    write_reference,
)
from reward_service.registry.manifest import Manifest
from reward_service.registry.store import Published, Store

FIGURES = HeadParity(
    max_abs_diff=0.5,
    mean_abs_diff=0.25,
    rank_correlation=0.9,
    label_flips=1,
    label_flip_share=0.1,
    batch_drift=0.0,
    n_scores=10,
    unit=1.0,
    max_allowed=1.0,
    mean_allowed=1.0,
)


def record_of(published: Published) -> ExportRecord:
    return ExportRecord(
        version=published.version,
        runtime="onnxruntime-fp32",
        reads="onnxruntime-fp32",
        parity={"relevance": FIGURES},
        n_texts=3,
        made_on=Environment(processor="abacus", libraries={"onnxruntime": "1"}),
        torch="2",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def published(store: Store, files: Path, manifest: Manifest) -> Published:
    return store.publish(files, manifest)


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    directory = tmp_path / "derived"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"graph")
    return directory


def test_an_export_is_beside_the_version_and_never_changes_it(
    store: Store, published: Published, derived: Path
) -> None:
    with pytest.raises(
        StoreError, match="has no onnxruntime fp32 export: run `reward-service export relevance --runtime onnxruntime"
    ):
        published.onnx_path()
    target = published.export_path("onnxruntime-fp32")
    write_export(target, record_of(published), derived)
    assert published.onnx_path().read_bytes() == b"graph"
    assert published.export_record("onnxruntime-fp32").parity == {"relevance": FIGURES}
    assert store.resolve("relevance") == published
    (derived / "model.onnx").write_bytes(b"better graph")
    write_export(target, record_of(published), derived)
    assert published.onnx_path().read_bytes() == b"better graph"
    assert sorted(path.name for path in target.parent.iterdir()) == [".lock", "onnxruntime-fp32"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("changed", r"model\.onnx: changed"),
        ("added", r"more\.onnx: was added"),
        ("other version", "is not the report of an export of"),
        ("no figures", r"parity: Field required.*export again"),
        ("no json", "not readable as JSON"),
    ],
)
def test_an_export_is_verified(published: Published, derived: Path, change: str, told: str) -> None:
    target = published.export_path("onnxruntime-fp32")
    write_export(target, record_of(published), derived)
    report = json.loads((target / "export.json").read_text())
    if change == "changed":
        (target / "model.onnx").write_bytes(b"evil")
    elif change == "added":
        (target / "more.onnx").write_bytes(b"evil")
    elif change == "no json":
        (target / "export.json").write_text("{")
    else:
        changed = {**report, "version": "0" * 12} if change == "other version" else {**report}
        if change == "no figures":
            del changed["parity"]
        (target / "export.json").write_text(json.dumps(changed))
    with pytest.raises(StoreError, match=told):
        published.export_record("onnxruntime-fp32")


def test_the_list_tells_every_exports_figures(published: Published, derived: Path) -> None:
    assert published.summary()["exports"] == {}
    write_export(published.export_path("onnxruntime-fp32"), record_of(published), derived)
    older = published.export_path("onnxruntime-int8")
    older.mkdir()
    (older / "export.json").write_text(json.dumps({"version": published.version, "max_abs_diff": 0.1}))
    (older.with_name(".staged-x")).mkdir()
    exports = published.summary()["exports"]
    assert list(exports) == ["onnxruntime-fp32", "onnxruntime-int8"]
    assert exports["onnxruntime-fp32"]["parity"]["relevance"]["rank_correlation"] == 0.9
    assert exports["onnxruntime-fp32"]["made_on"]["processor"] == "abacus"
    assert "parity" in exports["onnxruntime-int8"]["fault"]


def test_reference_texts_survive_the_file(tmp_path: Path) -> None:
    texts = [
        ReferenceText(prompt="p", response="a\nb é 🎉", fields={"q": "\u2028"}, scores=((0.1, 1 / 3), ())),
        ReferenceText(prompt="", response="", fields={}, scores=((-2.5e-8,),)),
    ]
    write_reference(tmp_path / "reference.jsonl", texts)
    assert read_reference(tmp_path / "reference.jsonl") == texts
    (tmp_path / "reference.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(StoreError, match=r"reference\.jsonl"):
        read_reference(tmp_path / "reference.jsonl")
