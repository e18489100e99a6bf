import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.config import ServiceSettings
from reward_service.core.prefix_difference import PrefixDifferenceSource
from reward_service.core.source import ScoreSource
from reward_service.core.text_source import TextSource
from reward_service.domain import ModelCard
from reward_service.errors import ConfigError
from reward_service.sources import text_sources
from reward_service.web.metrics import Metrics

KEY = "k-very-secret"
PARTS, WHOLE = ModelKind.TOKEN_CLASSIFICATION, ModelKind.SEQUENCE_CLASSIFICATION
PERSPECTIVE: dict[str, Any] = {"source": "perspective", "name": "toxicity", "key_env": "TEST_KEY"}
JUDGE: dict[str, Any] = {
    "source": "judge",
    "name": "judge",
    "base_url": "http://127.0.0.1:1/v1",
    "model": "m-1",
    "labels": {"ok": "fine", "bad": "not fine"},
}
CALLABLE: dict[str, Any] = {
    "source": "callable",
    "name": "mine",
    "function": "reward_of_test:score",
    "kind": "classifier",
}


@pytest.fixture(autouse=True)
def _function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "reward_of_test.py").write_text("def score(responses): return [[1.0] for _ in responses]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TEST_KEY", KEY)
    yield
    sys.modules.pop("reward_of_test", None)


def make(*models: dict[str, Any]) -> dict[int, ScoreSource]:
    settings = ServiceSettings.model_validate({"store": "s", "models": models})
    made = text_sources(settings.models, max_queue_items=10, telemetry=Metrics(CollectorRegistry(), 4))
    for source in made.values():
        source.close(1.0)
    return made


def card_of(entry: dict[str, Any], /, **changes: Any) -> ModelCard:
    (card,) = make(entry | changes)[0].cards
    return card


def test_each_entry_of_its_own_kind_gets_a_source_and_the_stores_get_none() -> None:
    made = make({"name": "relevance"}, PERSPECTIVE, {"name": "other"}, JUDGE, CALLABLE)
    kinds = {index: type(source) for index, source in made.items()}
    assert kinds == {1: PrefixDifferenceSource, 3: TextSource, 4: TextSource}


@pytest.mark.parametrize(
    ("model", "changes", "kind", "granularity", "labels", "runtime"),
    [
        (PERSPECTIVE, {}, ModelKind.SEQUENCE_REGRESSION, "sentence", (), "perspective"),
        (
            PERSPECTIVE,
            {"scoring": "direct"},
            WHOLE,
            "sequence",
            ("ok", "toxic"),
            "perspective",
        ),
        (JUDGE, {}, PARTS, "sentence", ("ok", "bad"), "openai-chat/m-1"),
        (
            JUDGE,
            {"granularity": "sequence"},
            WHOLE,
            "sequence",
            ("ok", "bad"),
            "openai-chat/m-1",
        ),
        (CALLABLE, {}, PARTS, "sentence", ("ok", "error"), "python"),
        (CALLABLE, {"kind": "regression"}, ModelKind.SEQUENCE_REGRESSION, "sentence", (), "python"),
        (
            CALLABLE,
            {"granularity": "paragraph"},
            ModelKind.TOKEN_CLASSIFICATION,
            "paragraph",
            ("ok", "error"),
            "python",
        ),
    ],
)
def test_the_card_tells_what_the_scores_are(
    model: dict[str, Any],
    changes: dict[str, Any],
    kind: ModelKind,
    granularity: str,
    labels: tuple[str, ...],
    runtime: str,
) -> None:
    card = card_of(model, **changes)
    assert (card.name, card.head.kind, card.granularity) == (model["name"], kind, Granularity(granularity))
    assert (card.head.labels, card.runtime, card.template, card.max_tokens) == (labels, runtime, "", 0)
    assert len(card.version) == 12
    assert card.digest.startswith(card.version)
    assert KEY not in repr(card)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (PERSPECTIVE, {"attribute": "INSULT"}),
        (PERSPECTIVE, {"language": "de"}),
        (PERSPECTIVE, {"scoring": "direct"}),
        (PERSPECTIVE, {"base_url": "http://127.0.0.1:1"}),
        (JUDGE, {"model": "m-2"}),
        (JUDGE, {"instructions": "Be fair."}),
        (JUDGE, {"labels": {"ok": "fine", "bad": "bad"}}),
        (JUDGE, {"temperature": 0.5}),
        (CALLABLE, {"kind": "regression"}),
        (CALLABLE, {"packages": ["pydantic"]}),
    ],
)
def test_what_changes_a_score_changes_the_version(model: dict[str, Any], changes: dict[str, Any]) -> None:
    assert card_of(model).version != card_of(model, **changes).version


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (PERSPECTIVE, {"requests_per_s": 50.0, "attempts": 2, "timeout_s": 3.0, "cache": False, "concurrency": 2}),
        (PERSPECTIVE, {"key_env": "OTHER_KEY"}),
        (CALLABLE, {"batch_items": 3, "concurrency": 4}),
    ],
)
def test_what_changes_no_score_keeps_the_version(
    model: dict[str, Any], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "another")
    assert card_of(model).version == card_of(model, **changes).version


def test_the_order_of_a_judges_labels_is_part_of_its_version() -> None:
    """It decides ties."""
    turned = dict(reversed(JUDGE["labels"].items()))
    assert card_of(JUDGE).version != card_of(JUDGE, labels=turned).version


def test_a_changed_function_is_another_version(tmp_path: Path) -> None:
    before = card_of(CALLABLE).version
    (tmp_path / "reward_of_test.py").write_text("def score(responses): return [[0.0] for _ in responses]\n")
    assert card_of(CALLABLE).version != before


def test_every_entry_that_cannot_be_set_up_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        make(
            CALLABLE,
            PERSPECTIVE | {"key_env": "NO_SUCH_KEY"},
            CALLABLE | {"name": "a", "function": "no_such_module_at_all:score"},
            CALLABLE | {"name": "b", "function": "reward_of_test:nothing"},
            CALLABLE | {"name": "c", "packages": ["no-such-package"]},
            JUDGE | {"key_env": "NO_SUCH_KEY"},
        )
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [
        "models[1].key_env",
        "models[2].function",
        "models[3].function",
        "models[4].packages",
        "models[5].key_env",
    ]
    assert "NO_SUCH_KEY is not set" in caught.value.faults[0]
    assert "ModuleNotFoundError" in caught.value.faults[1]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stamina", None)
    with pytest.raises(ConfigError, match=r"models\[0\]: source needs stamina, .*\[text-rewards\]"):
        make(PERSPECTIVE)
