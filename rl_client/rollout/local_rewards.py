"""Rewards that a Python function of this process gives, beside those of the service."""

import asyncio
import hashlib
import importlib
import inspect
import logging
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_proto import RETRYABLE, ErrorCode, Granularity, ModelScore, ScoreError, SegmentScore
from rl_client.errors import ConfigError
from rl_client.rollout.stages import Rollout
from rl_client.training.settings_rewards import RewardSettings

logger = logging.getLogger(__name__)

RUNTIME = "python"
VERSION_CHARS = 12


@dataclass(frozen=True, slots=True)
class LocalSample:
    """One response as a function gets it.

    Attributes:
        prompt: What the policy was given.
        response: The text to score.
        fields: The prompt's named inputs, such as `question` and `context`.
        length_tokens: Sampled tokens, eos included.
        finished: Whether it ended by eos; False = cut off at the length limit.
    """

    prompt: str
    response: str
    fields: Mapping[str, str]
    length_tokens: int
    finished: bool


class LocalReward:
    """Calls `function(samples)`, which gives a list of as many results, sync or async.

    A result is a number for the whole response; or, where the granularity is not `sequence`, a list of
    `(start, end, number)` in code points, in order. None = no score. What is no score (None, NaN, a wrong type, an
    exception, a call that takes too long) is an error of those responses, as from the service; it is never a 0.
    """

    def __init__(self, settings: RewardSettings, where: str) -> None:
        """Import the function.

        Args:
            settings: With `function`.
            where: The settings' path in their file, for the error.

        Raises:
            ConfigError: If there is no such function.
        """
        reference = settings.function or ""
        self.name = settings.name
        self._settings = settings
        try:
            self._function = load_function(reference)
        except ValueError as error:
            raise ConfigError("settings", [f"{where}.function: {error}"]) from error
        self.version = source_version(self._function, reference)
        self._free = threading.Semaphore(settings.concurrency)

    def score(self, rollout: Rollout) -> list[ModelScore]:
        """The function's score of every response, in order; an `error` where it gave none."""
        samples = [_sample(rollout, row) for row in range(len(rollout.texts))]
        size = self._settings.batch_size or max(1, len(samples))
        batches = [samples[start : start + size] for start in range(0, len(samples), size)]
        with ThreadPoolExecutor(min(self._settings.concurrency, max(1, len(batches)))) as pool:
            return [score for scores in pool.map(self._score_batch, batches) for score in scores]

    def _score_batch(self, samples: Sequence[LocalSample]) -> list[ModelScore]:
        try:
            with self._free:
                given = _call(self._function, list(samples), self._settings.timeout_s)
            results = list(given)
            if len(results) != len(samples):
                raise ValueError(f"{len(results)} results for {len(samples)} responses")
        except TimeoutError:
            message = f"{self.name} gave no answer within {self._settings.timeout_s} s"
            logger.warning(message)
            return [self._failure(ErrorCode.DEADLINE_EXCEEDED, message) for _ in samples]
        except Exception as error:
            logger.warning("the reward %s failed for %d responses", self.name, len(samples), exc_info=error)
            message = f"{self.name}: {type(error).__name__}: {error}"
            return [self._failure(ErrorCode.MODEL_FAILED, message) for _ in samples]
        return [self._score(sample, result) for sample, result in zip(samples, results, strict=True)]

    def _score(self, sample: LocalSample, result: Any) -> ModelScore:
        whole: float | None
        try:
            if self._settings.granularity is Granularity.SEQUENCE:
                segments = [_segment(0, len(sample.response), result)]
                whole = segments[0].score
            else:
                segments = [_segment(start, end, number) for start, end, number in result]
                _check_spans(segments, sample.response)
                whole = sum(segment.score for segment in segments) / len(segments) if segments else None
        except (TypeError, ValueError) as error:
            return self._failure(ErrorCode.MODEL_FAILED, f"{self.name} gave no score: {error}")
        # A blank response has no segment; the score of the whole stands for itself.
        segments = segments if sample.response else []
        return self._model_score(segments, whole, None)

    def _failure(self, code: ErrorCode, message: str) -> ModelScore:
        return self._model_score(None, None, ScoreError(code=code, message=message, retryable=code in RETRYABLE))

    def _model_score(
        self, segments: list[SegmentScore] | None, whole: float | None, error: ScoreError | None
    ) -> ModelScore:
        return ModelScore(
            model=self.name,
            version=self.version,
            runtime=RUNTIME,
            granularity=self._settings.granularity,
            segments=segments,
            sequence_score=whole,
            error=error,
        )


def load_function(reference: str) -> Callable[..., Any]:
    """Import what `module:function` names; modules of the current directory are found too.

    Raises:
        ValueError: If it cannot be imported, is not there, or cannot be called.
    """
    module_name, _, path = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
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


def source_version(function: Callable[..., Any], reference: str) -> str:
    """Names a function's numbers: a digest of its reference and of the file it is defined in."""
    digest = hashlib.sha256(reference.encode())
    path = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isroutine(function) else None
    if path is not None:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:VERSION_CHARS]


def _call(function: Callable[..., Any], samples: list[LocalSample], timeout_s: float) -> Any:
    """The function's answer, awaited where it is async.

    It runs in a thread that dies with the process: one that never returns is left behind and cannot hold up the run.

    Raises:
        TimeoutError: If it takes longer.
    """
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            given = function(samples)
            answer.set_result(asyncio.run(_within(given, timeout_s)) if inspect.isawaitable(given) else given)
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(error)

    threading.Thread(target=work, name="local-reward", daemon=True).start()
    return answer.result(timeout_s)


async def _within(given: Any, timeout_s: float) -> Any:
    return await asyncio.wait_for(given, timeout_s)


def _sample(rollout: Rollout, row: int) -> LocalSample:
    prompt = rollout.prompt_of(row)
    return LocalSample(
        prompt=prompt.text,
        response=rollout.texts[row],
        fields=dict(prompt.fields),
        length_tokens=len(rollout.offsets[row]),
        finished=rollout.finished[row],
    )


def _segment(start: int, end: int, given: Any) -> SegmentScore:
    if given is None:
        raise ValueError("None")
    number = float(given)
    if not math.isfinite(number):
        raise ValueError(f"the number {number}")
    return SegmentScore(start=start, end=end, score=number)


def _check_spans(segments: Sequence[SegmentScore], text: str) -> None:
    position = 0
    for segment in segments:
        if not position <= segment.start < segment.end <= len(text):
            raise ValueError(f"span [{segment.start}, {segment.end}) is empty, out of order or outside the response")
        position = segment.end
