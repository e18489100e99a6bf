from pathlib import Path

import pytest

from reward_proto.models import ModelKind
from reward_service.errors import ConfigError, StoreError
from reward_service.registry.store import Published, Store
from reward_service.training.data_files import DataFile
from reward_service.training.dataset import read_feedback
from reward_service.training.evaluate import (
    Judged,
    default_rules,
    evaluate,
    load_backend,
    published_history,
    published_rules,
    report,
    score_lines,
)
from reward_service.training.export import export


@pytest.mark.parametrize("name", ["factuality", "preference"])
def test_the_published_version_gives_the_figures_of_its_training(
    trained: tuple[Path, Path], feedback_files: tuple[Path, Path], name: str
) -> None:
    store = Store(trained[1])
    published = store.resolve(name)
    feedback = read_feedback("qa_feedback", [DataFile(feedback_files[1])])
    rules = published_rules(published)
    assert rules is not None
    (judged,) = evaluate(published, load_backend(published, "torch", threads=1), feedback, rules)
    metrics = judged.metrics
    assert metrics == pytest.approx(published.manifest.metrics, abs=1e-5)
    export(published)
    onnx = load_backend(published, "onnxruntime", threads=1)
    assert onnx.runtime == "onnxruntime-fp32"
    (again,) = evaluate(published, onnx, feedback, rules)
    assert again.metrics == pytest.approx(metrics, abs=1e-5)


def test_a_version_from_elsewhere_is_judged_by_every_error_type(
    trained: tuple[Path, Path], feedback_files: tuple[Path, Path]
) -> None:
    published = Store(trained[1]).resolve("factuality")
    rule = default_rules(published, read_feedback("qa_feedback", [DataFile(feedback_files[1])]))["factuality"]
    assert rule.span.error_types == {"Irrelevant", "Unverifiable"}
    assert rule.pairs == "preference"


def test_a_damaged_rule_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    published = Store(trained[1]).resolve("preference")
    assert published_rules(published) is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in published.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "rule.json").unlink()
    bare = Store(tmp_path / "store").publish(copy, published.manifest)
    assert published_rules(bare) is None
    (copy / "rule.json").write_text("{}")
    broken = Store(tmp_path / "store").publish(copy, published.manifest)
    with pytest.raises(StoreError, match=r"rule\.json"):
        published_rules(broken)


def test_an_export_that_is_missing_is_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source = Store(trained[1]).resolve("factuality")
    published = Store(tmp_path).publish(source.path, source.manifest)
    with pytest.raises(StoreError, match="reward-service export factuality"):
        load_backend(published, "onnxruntime", threads=1)


def judge(trained: tuple[Path, Path], files: tuple[Path, Path], name: str) -> tuple[Published, list[Judged]]:
    published = Store(trained[1]).resolve(name)
    feedback = read_feedback("qa_feedback", [DataFile.parse(f"{files[1]}[:2]")])
    rules = published_rules(published)
    assert rules is not None
    return published, evaluate(published, load_backend(published, "torch", threads=1), feedback, rules)


def test_the_report_names_what_was_judged(trained: tuple[Path, Path], feedback_files: tuple[Path, Path]) -> None:
    published, judged = judge(trained, feedback_files, "preference")
    told = report(published, "torch-fp32", judged, [DataFile.parse("a.json[:2]")], 2, flat=True)
    assert told["version"] == published.version
    assert told["kind"] == ModelKind.SEQUENCE_REGRESSION.value
    assert (told["n_pairs"], told["n_examples"], told["data"]) == (6, 2, ["a.json[:2]"])
    nested = report(published, "torch-fp32", judged, [], 2, flat=False)
    assert nested["heads"]["preference"]["n_pairs"] == 6


def test_every_score_is_told_with_its_truth(trained: tuple[Path, Path], feedback_files: tuple[Path, Path]) -> None:
    _, judged = judge(trained, feedback_files, "factuality")
    lines = list(score_lines(judged))
    # Two sentences in each of two answers; the second is only Irrelevant, which this model leaves out.
    assert [(line["index"], line["response"]) for line in lines] == [(0, 0), (0, 0), (1, 0), (1, 0)]
    assert [line["truth"] for line in lines[1::2]] == [None, None]
    texts = [row.item.response for row in (example.row for example in judged[0].examples)]
    for line, text in zip(lines[::2], texts, strict=True):
        assert line["truth"] == ("error" if "amber" in text else "ok")
        assert text[line["start"] : line["end"]].endswith(".")
        assert 0 <= line["score"] <= 1
    _, compared = judge(trained, feedback_files, "preference")
    lines = list(score_lines(compared))
    assert [(line["index"], line["response"]) for line in lines] == [(row, k) for row in (0, 1) for k in range(4)]
    assert {(line["label"], line["truth"]) for line in lines} == {(None, None)}


def test_an_unknown_head_is_told(trained: tuple[Path, Path], feedback_files: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("factuality")
    feedback = read_feedback("qa_feedback", [DataFile(feedback_files[1])])
    backend = load_backend(published, "torch", threads=1)
    with pytest.raises(ConfigError, match="no head 'relevance'; there is factuality"):
        evaluate(published, backend, feedback, default_rules(published, feedback), ["relevance"])


def test_the_learning_curve_is_published(trained: tuple[Path, Path]) -> None:
    history = published_history(Store(trained[1]).resolve("factuality"))
    assert len(history) == 12
    assert history[-1].train_loss < history[0].train_loss / 2
    metrics = Store(trained[1]).resolve("factuality").manifest.metrics
    assert min(epoch.held_out_loss for epoch in history if epoch.held_out_loss is not None) == metrics["loss"]
