import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_proto.score import Granularity
from reward_service.core.segment import segment_text
from reward_service.domain import ItemScore, Segmented, TextItem
from reward_service.errors import ModelFailedError
from reward_service.text_rewards.callable_reward import CallableReward, RewardInput, load_function, provenance
from reward_service.text_rewards.settings import CallableSettings

Run = Callable[[Awaitable[Any]], Any]
TEXT = "It is. It was not."


def make(function: Any, kind: str = "classifier", granularity: str = "sentence", **more: Any) -> CallableReward:
    given = {"source": "callable", "name": "f", "function": "a:b", "kind": kind, "granularity": granularity, **more}
    return CallableReward(function, CallableSettings.model_validate(given))


def segmented(text: str, granularity: str = "sentence", **item: Any) -> Segmented:
    return Segmented(TextItem(item.pop("prompt", ""), text, **item), segment_text(text, Granularity(granularity)))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes a module and gives its name."""
    made: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def write(content: str) -> str:
        made.append(f"reward_module_{tmp_path.name.replace('-', '_')}_{len(made)}")
        (tmp_path / f"{made[-1]}.py").write_text(content)
        return made[-1]

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_the_function_gets_the_texts_of_the_segments(run: Run) -> None:
    seen: list[RewardInput] = []

    def function(responses: list[RewardInput]) -> list[list[float]]:
        seen.extend(responses)
        return [[0.75, 0.25] for _ in responses]

    (result,) = run(make(function).score([segmented(TEXT, prompt="p", fields={"a": "b"})]))
    assert seen == [RewardInput("p", TEXT, ("It is.", "It was not."), ((0, 6), (7, 18)), {"a": "b"})]
    assert [(s.score, s.label, s.logits) for s in result.segments] == [
        (0.75, "ok", (0.75,)),
        (0.25, "error", (0.25,)),
    ]
    assert result.sequence_score == 0.5


def test_a_regression_has_no_labels_and_adds_up(run: Run) -> None:
    (result,) = run(make(lambda responses: [[-3.0, 1.5]], "regression").score([segmented(TEXT)]))
    assert [(s.score, s.label) for s in result.segments] == [(-3.0, None), (1.5, None)]
    assert result.sequence_score == -1.5


def test_a_whole_response_is_one_number(run: Run) -> None:
    reward = make(lambda responses: [len(one.response) for one in responses], "regression", "sequence")
    full, blank = run(reward.score([segmented(TEXT, "sequence"), segmented(" ", "sequence")]))
    assert (full.sequence_score, full.segments[0].score, len(full.segments)) == (18.0, 18.0, 1)
    assert blank == ItemScore((), 1.0)


def test_async_functions_and_objects_run_on_the_loop(run: Run) -> None:
    async def function(responses: list[RewardInput]) -> list[list[float]]:
        await asyncio.sleep(0)
        assert threading.current_thread() is threading.main_thread()
        return [[1.0, 0.0]]

    class Counter:
        async def __call__(self, responses: list[RewardInput]) -> list[list[float]]:
            return await function(responses)

    for one in (function, Counter()):
        (result,) = run(make(one).score([segmented(TEXT)]))
        assert result.sequence_score == 0.5


def test_a_sync_function_leaves_the_loop_free(run: Run) -> None:
    threads: list[str] = []

    def function(responses: list[RewardInput]) -> Any:
        threads.append(threading.current_thread().name)
        return [np.array([1.0, 0.5], dtype=np.float32)]

    (result,) = run(make(function).score([segmented(TEXT)]))
    assert result.sequence_score == 0.75
    assert threads[0].startswith("call-f")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "NoneType in place of a list"),
        ([], "0 results for 1 responses"),
        ([[1.0, 1.0], [1.0, 1.0]], "2 results for 1 responses"),
        ([[1.0]], "1 numbers for 2 segments"),
        ([[1.0, 1.0, 1.0]], "3 numbers for 2 segments"),
        ([1.0], "float for a response in place of one number a segment"),
        ([[1.0, "high"]], "in place of one number a segment"),
        ([[1.0, None]], "in place of one number a segment"),
        ([None], "NoneType for a response"),
    ],
)
def test_what_does_not_fit_is_an_error(run: Run, given: Any, told: str) -> None:
    async def outcome() -> Any:
        (result,) = await make(lambda responses: given).score([segmented(TEXT)])
        raise result

    with pytest.raises(ModelFailedError, match=told):
        run(outcome())


def test_one_responses_fault_is_its_own(run: Run) -> None:
    good, bad = run(make(lambda responses: [[1.0, 1.0], [1.0]]).score([segmented(TEXT), segmented(TEXT)]))
    assert isinstance(good, ItemScore)
    assert isinstance(bad, ModelFailedError)


def test_functions_are_found_by_their_name(module: Callable[[str], str]) -> None:
    name = module("class A:\n    @staticmethod\n    def b(x): return x\nNUMBER = 1\n")
    assert load_function(f"{name}:A.b")(3) == 3
    for reference, told in [
        (f"{name}:nothing", "has no nothing"),
        (f"{name}:A.nothing", "has no A.nothing"),
        (f"{name}:NUMBER", "not a function but int"),
        ("no_such_module_at_all:f", "cannot import no_such_module_at_all: ModuleNotFoundError"),
        (f"{module('1 / 0')}:f", "ZeroDivisionError"),
        (f"{module('def')}:f", "SyntaxError"),
    ]:
        with pytest.raises(ValueError, match=told):
            load_function(reference)


def test_provenance_follows_the_source_and_the_packages(module: Callable[[str], str]) -> None:
    one, same, other = module("def f(): 1"), module("def f(): 1"), module("def f(): 2")
    told = [provenance(f"{name}:f", ["pydantic"]) for name in (one, same, other)]
    assert told[0] == told[1] != told[2]
    assert told[0].keys() == {"sha256", "pydantic"}
    assert provenance("yaml:safe_load", []).keys() == {"sha256", "PyYAML"}
    with pytest.raises(ValueError, match="no-such-package is not installed"):
        provenance(f"{one}:f", ["no-such-package"])
