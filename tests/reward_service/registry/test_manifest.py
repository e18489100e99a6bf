from typing import Any

import pytest
from pydantic import ValidationError

from reward_service.registry.manifest import Manifest


def changed(manifest: Manifest, **changes: Any) -> Manifest:
    return Manifest.model_validate({**manifest.model_dump(mode="json"), **changes})


def test_the_head_keeps_the_order_of_labels(manifest: Manifest) -> None:
    head = changed(manifest, labels=["ok", "error"]).head
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
        {"name": "../x"},
        {"max_tokens": 0},
        {"calibration": {"mean": 0.0, "std": 0.0}},
        {"surprise": 1},
    ],
)
def test_parts_that_do_not_fit_are_refused(manifest: Manifest, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        changed(manifest, **changes)


def test_a_regressor_scores_the_sequence(manifest: Manifest) -> None:
    regressor = changed(manifest, kind="sequence_regression", labels=[], ok_label="", granularity="sequence")
    assert regressor.head.labels == ()
