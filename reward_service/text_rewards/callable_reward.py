"""A Python function as reward, named `module:function`."""

import asyncio
import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from reward_proto.score import Granularity
from reward_service.core.text_reward import Result
from reward_service.domain import ItemScore, ScoredSpan, Segmented, Span
from reward_service.errors import ModelFailedError
from reward_service.text_rewards.settings import CallableSettings

OK_LABEL, ERROR_LABEL = "ok", "error"
LABELS = (OK_LABEL, ERROR_LABEL)
OK_FROM = 0.5


@dataclass(frozen=True, slots=True)
class RewardInput:
    """One response as the function gets it.

    Attributes:
        prompt: What the policy was given.
        response: The whole text.
        segments: The texts of its segments, in order.
        spans: Their half-open code-point ranges in `response`.
        fields: The caller's named inputs, such as `question` and `context`.
    """

    prompt: str
    response: str
    segments: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    fields: dict[str, str] = field(default_factory=dict)


class CallableReward:
    """Calls a function with a list of `RewardInput`s; it gives a list of as many results.

    A result is one number a segment, or one number alone where the granularity is `sequence`.

    Args:
        function: Sync (it runs on threads) or async (it must not block for long).
        settings: What its numbers mean, and how many threads it has.
    """

    def __init__(self, function: Callable[[list[RewardInput]], Any], settings: CallableSettings) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose call is async
        )
        self._is_classifier = settings.kind == "classifier"
        self._is_whole = settings.granularity is Granularity.SEQUENCE
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix=f"call-{settings.name}")

    async def score(self, responses: Sequence[Segmented]) -> Sequence[Result]:
        """See `core.text_reward.TextReward`."""
        inputs = [_input_of(response) for response in responses]
        if self._is_async:
            given = await self._function(inputs)
        else:
            given = await asyncio.get_running_loop().run_in_executor(self._pool, self._function, inputs)
        try:
            results = list(given)
        except TypeError as error:
            raise ModelFailedError(f"the function gave {type(given).__name__} in place of a list") from error
        if len(results) != len(responses):
            raise ModelFailedError(f"the function gave {len(results)} results for {len(responses)} responses")
        return [self._score(response, one) for response, one in zip(responses, results, strict=True)]

    async def close(self) -> None:
        """Take no more calls; one that is under way ends in its own time."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _score(self, response: Segmented, given: Any) -> Result:
        spans = response.spans or (Span(0, 0),)
        try:
            numbers = [float(given)] if self._is_whole else [float(number) for number in given]
        except (TypeError, ValueError):
            wanted = "a number" if self._is_whole else "one number a segment"
            return ModelFailedError(f"the function gave {type(given).__name__} for a response in place of {wanted}")
        if len(numbers) != len(spans):
            return ModelFailedError(f"the function gave {len(numbers)} numbers for {len(spans)} segments")
        scored = tuple(
            ScoredSpan(span, number, self._label(number), (number,))
            for span, number in zip(spans, numbers, strict=True)
        )
        total = math.fsum(numbers)
        return ItemScore(scored if response.spans else (), total / len(numbers) if self._is_classifier else total)

    def _label(self, number: float) -> str | None:
        if not self._is_classifier:
            return None
        return OK_LABEL if number >= OK_FROM else ERROR_LABEL


def load_function(reference: str) -> Callable[..., Any]:
    """Import what `module:function` names.

    Raises:
        ValueError: It cannot be imported, is not there, or is no function.
    """
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(f"cannot import {module_name}: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"{module_name} has no {path}") from error
    if not callable(found):
        raise ValueError(f"{reference} is not a function but {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def provenance(reference: str, packages: Sequence[str]) -> dict[str, str]:
    """What can be told of a function's code: its module's digest, and versions of its package and of those named.

    Args:
        reference: `module:function`, imported before.
        packages: Further distributions that its scores depend on.

    Raises:
        ValueError: A named one is not installed.
    """
    module_name = reference.partition(":")[0]
    told = {}
    path = inspect.getsourcefile(importlib.import_module(module_name))
    if path is not None:
        told["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    own = metadata.packages_distributions().get(module_name.partition(".")[0], [])
    for distribution in sorted({*own, *packages}):
        try:
            told[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError as error:
            raise ValueError(f"package {distribution} is not installed") from error
    return told


def _input_of(response: Segmented) -> RewardInput:
    item = response.item
    return RewardInput(
        prompt=item.prompt,
        response=item.response,
        segments=tuple(item.response[span.start : span.end] for span in response.spans),
        spans=tuple((span.start, span.end) for span in response.spans),
        fields=dict(item.fields),
    )
