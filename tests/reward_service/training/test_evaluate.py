from pathlib import Path

import pytest

from reward_proto.models import ModelKind
from reward_service.errors import StoreError
from reward_service.registry.store import Store
from reward_service.training.dataset import read_feedback
from reward_service.training.evaluate import default_rule, evaluate, load_backend, published_rule, report
from reward_service.training.export_onnx import export_onnx


@pytest.mark.parametrize("name", ["factuality", "preference"])
def test_the_published_version_gives_the_figures_of_its_training(
    trained: tuple[Path, Path], feedback_files: tuple[Path, Path], name: str
) -> None:
    store = Store(trained[1])
    published = store.resolve(name)
    examples = read_feedback([feedback_files[1]])
    rule = published_rule(published)
    assert rule is not None
    metrics = evaluate(published, load_backend(published, "torch", threads=1), examples, rule)
    assert metrics == pytest.approx(published.manifest.metrics, abs=1e-5)
    export_onnx(store, published)
    onnx = load_backend(published, "onnxruntime", threads=1)
    assert onnx.runtime == "onnxruntime-fp32"
    assert evaluate(published, onnx, examples, rule) == pytest.approx(metrics, abs=1e-5)


def test_a_version_from_elsewhere_is_judged_by_every_error_type(feedback_files: tuple[Path, Path]) -> None:
    rule = default_rule(read_feedback([feedback_files[1]]))
    assert rule.span.error_types == {"Irrelevant", "Unverifiable"}
    assert rule.pairs == "preference"


def test_a_damaged_rule_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    published = Store(trained[1]).resolve("preference")
    assert published_rule(published) is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in published.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "rule.json").unlink()
    bare = Store(tmp_path / "store").publish(copy, published.manifest)
    assert published_rule(bare) is None
    (copy / "rule.json").write_text("{}")
    broken = Store(tmp_path / "store").publish(copy, published.manifest)
    with pytest.raises(StoreError, match=r"rule\.json"):
        published_rule(broken)


def test_an_export_that_is_missing_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source = Store(trained[1]).resolve("factuality")
    published = Store(tmp_path).publish(source.path, source.manifest)
    with pytest.raises(StoreError, match="reward-service export factuality"):
        load_backend(published, "onnxruntime", threads=1)


def test_the_report_names_what_was_judged(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("preference")
    told = report(published, "torch-fp32", {"n_pairs": 3, "accuracy": 0.5, "loss": None}, [Path("a.json")], 2)
    assert told["version"] == published.version
    assert told["kind"] == ModelKind.SEQUENCE_REGRESSION.value
    assert (told["n_pairs"], told["accuracy"], told["n_examples"], told["data"]) == (3, 0.5, 2, ["a.json"])
