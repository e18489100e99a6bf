import json
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.domain import Readout
from reward_service.errors import StoreError
from reward_service.registry.describe import describe, find_ok_label
from reward_service.registry.manifest import Manifest, Scoring


def described(files: Path, **changes: Any) -> Manifest:
    given = {
        "name": "m",
        "kind": ModelKind.TOKEN_CLASSIFICATION,
        "granularity": Granularity.SENTENCE,
        "template": "{question}",
    }
    return describe(files, **{**given, **changes})


def test_labels_and_length_come_from_the_config(files: Path) -> None:
    manifest = described(files)
    assert (manifest.labels, manifest.ok_label, manifest.max_tokens) == (("error", "ok"), "ok", 64)
    assert described(files, max_tokens=10, ok_label="error").ok_label == "error"


def test_what_the_caller_says_goes_into_the_manifest(files: Path) -> None:
    manifest = described(
        files, template="{passage}", fields=("passage",), language="de", readout=Readout.AFTER, cut_field="passage"
    )
    assert (manifest.segmenter.language, manifest.readout, manifest.cut_field) == ("de", Readout.AFTER, "passage")
    toxicity = described(files, kind=ModelKind.SEQUENCE_CLASSIFICATION, scoring=Scoring.PREFIX_DIFFERENCE)
    assert toxicity.outputs[0].granularity is Granularity.SEQUENCE


@pytest.mark.parametrize(("model_type", "readout"), [("bert", Readout.BEFORE), ("llama", Readout.AFTER)])
def test_a_model_that_cannot_see_ahead_is_read_after_its_segments(
    files: Path, model_type: str, readout: Readout
) -> None:
    (files / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert described(files).readout is readout


def test_names_for_a_head_without_any(files: Path) -> None:
    (files / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert described(files).labels == ("LABEL_0", "LABEL_1")
    given = described(files, labels=("ok", "error"))
    assert (given.labels, given.ok_label) == (("ok", "error"), "ok")


def test_independent_classes_are_errors_by_name(files: Path) -> None:
    config = {"problem_type": "multi_label_classification", "id2label": {"0": "insult", "1": "Toxicity"}}
    (files / "config.json").write_text(json.dumps(config))
    found = described(files)
    assert (found.labels, found.error_labels, found.ok_label) == (("insult", "Toxicity"), ("Toxicity",), "ok")
    given = described(files, error_labels=("insult",), ok_label="fine")
    assert (given.error_labels, given.ok_label) == (("insult",), "fine")
    with pytest.raises(StoreError, match=r"config\.json: several of its classes may hold.*--error-label\): a, b"):
        described(files, labels=("a", "b"))


def test_a_regressor_has_no_labels(files: Path) -> None:
    manifest = described(files, kind=ModelKind.SEQUENCE_REGRESSION, granularity=Granularity.SEQUENCE)
    assert (manifest.labels, manifest.ok_label) == ((), "")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ok_label": "fine"}, "ok_label"),
        ({"template": "{q!r}"}, "bare"),
        ({"template": "{question} {passage} {prompt}"}, "needs passage, which nobody sends"),
        ({"template": "{question} {context}", "fields": ("question",)}, "needs context, which nobody sends"),
        ({"language": "English"}, "no ISO 639 code"),
        ({"kind": ModelKind.SEQUENCE_REGRESSION, "granularity": Granularity.SEQUENCE, "labels": ("a",)}, "no labels"),
        ({"kind": ModelKind.SEQUENCE_REGRESSION}, "whole sequence"),
        ({"name": "a b"}, "pattern"),
    ],
)
def test_faults_are_told(files: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(StoreError, match=fault):
        described(files, **changes)


def test_the_ok_label_is_found_by_name() -> None:
    assert find_ok_label(("OK", "error")) == "OK"
    assert find_ok_label(("F-ERR", "O")) == "O"
    assert find_ok_label(("LABEL_0", "LABEL_1")) == "LABEL_1"
