from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.registry.manifest import Manifest


def changed(manifest: Manifest, **changes: Any) -> Manifest:
    return Manifest.model_validate({**manifest.model_dump(mode="json"), **changes})


def test_the_head_keeps_the_order_of_labels(manifest: Manifest) -> None:
    (head,) = changed(manifest, labels=["ok", "error"]).logit_heads
    assert head.labels == ("ok", "error")
    assert head.ok_label == "ok"


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["ok"]},
        {"ok_label": "fine"},
        {"labels": [], "ok_label": ""},
        {"kind": "sequence_regression", "granularity": "sequence"},
        {"kind": "sequence_regression", "labels": [], "ok_label": "", "granularity": "sentence"},
        {"kind": "sequence_classification"},
        {"labels": ["ok", "error", "error"]},
        {"ok_label": "fine", "error_labels": ["errors"]},
        {"ok_label": "fine", "error_labels": ["error", "error"]},
        {"ok_label": "ok", "error_labels": ["error"]},
        {"ok_label": "", "error_labels": ["error"]},
        {"name": "../x"},
        {"max_tokens": 0},
        {"calibration": {"mean": 0.0, "std": 0.0}},
        {"surprise": 1},
    ],
)
def test_parts_that_do_not_fit_are_refused(manifest: Manifest, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        changed(manifest, **changes)


def test_one_class_is_enough_where_each_has_its_own_probability(manifest: Manifest) -> None:
    (head,) = changed(manifest, labels=["toxic"], ok_label="fine", error_labels=["toxic"]).logit_heads
    assert (head.width, head.error_labels, head.verdicts) == (1, ("toxic",), ("toxic", "fine"))


def test_a_regressor_scores_the_sequence(manifest: Manifest) -> None:
    regressor = changed(manifest, kind="sequence_regression", labels=[], ok_label="", granularity="sequence")
    assert regressor.logit_heads[0].labels == ()


def bundle(manifest: Manifest, **changes: Any) -> Manifest:
    span = {"kind": "token_classification", "labels": ["error", "ok"], "ok_label": "ok"}
    heads = [
        {"name": "fine", "granularity": "sub_sentence", **span},
        {"name": "whole", "kind": "sequence_regression", "granularity": "sequence"},
        {"name": "coarse", "granularity": "sentence", **span, "calibration": {"mean": 0.5, "std": 0.1}},
    ]
    return changed(
        manifest,
        **{
            "kind": "token_classification",
            "granularity": "sub_sentence",
            "labels": [],
            "ok_label": "",
            "calibration": None,
            "heads": heads,
            **changes,
        },
    )


def test_heads_take_the_columns_in_order(manifest: Manifest) -> None:
    shared = bundle(manifest)
    assert [(head.name, head.columns) for head in shared.logit_heads] == [
        ("fine", slice(0, 2)),
        ("whole", slice(2, 3)),
        ("coarse", slice(3, 5)),
    ]
    assert [output.name for output in shared.outputs] == ["fine", "whole", "coarse"]
    assert shared.input_spec.kinds == tuple(output.kind for output in shared.outputs)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": ["error", "ok"], "ok_label": "ok"}, "belong to each"),
        ({"granularity": "sentence"}, "finest"),
        ({"kind": "sequence_regression"}, "token classifier"),
        ({"heads": [{"name": "a", "kind": "sequence_regression", "granularity": "sequence"}]}, "a single head"),
        ({"heads": [{"name": "a", "kind": "sequence_regression", "granularity": "sequence"}] * 2}, "different names"),
        ({"heads": [{"name": "a", "kind": "sequence_regression", "granularity": "sentence"}]}, "whole sequence"),
    ],
)
def test_heads_that_do_not_fit_are_refused(manifest: Manifest, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        bundle(manifest, **changes)


def test_prefix_differences_are_of_a_classifier_of_whole_texts(manifest: Manifest) -> None:
    toxicity = changed(manifest, kind="sequence_classification", granularity="sentence", scoring="prefix_difference")
    (output,) = toxicity.outputs
    assert output.granularity == "sequence"
    for wrong in ({"granularity": "sequence"}, {"kind": "token_classification"}):
        with pytest.raises(ValidationError, match="prefix_difference"):
            changed(toxicity, **wrong)
