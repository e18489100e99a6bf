import asyncio
import threading

import pytest
import torch

from reward_proto import ErrorCode
from rl_client.errors import ConfigError
from rl_client.rollout.local_rewards import LocalReward, load_function
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch
from rl_client.training.settings_rewards import RewardSettings

TEXTS = ("one two", "", "three")
MODULE = """
import asyncio, threading
from pathlib import Path

calls = []
never = threading.Event()

def words(samples):
    calls.append(samples)
    return [len(sample.response.split()) for sample in samples]

async def chars(samples):
    await asyncio.sleep(0)
    return [len(sample.response) for sample in samples]

def spans(samples):
    return [[(0, 3, 0.5), (4, 7, -1)] if sample.response == "one two" else [] for sample in samples]

def odd(samples):
    return [None, float("nan"), 2]

def wrong_type(samples):
    return ["a", object(), 1.5]

def short(samples):
    return [1.0]

def picky(samples):
    if any(not sample.response for sample in samples):
        raise RuntimeError("blank")
    return [1.0] * len(samples)

def stuck(samples):
    never.wait()

async def stuck_too(samples):
    await asyncio.Event().wait()

def bad_spans(samples):
    return [[(0, 9, 1.0)], [], [(2, 4, 1.0), (1, 2, 1.0)]]

class Scorer:
    def __call__(self, samples):
        return [7.0] * len(samples)

scorer = Scorer()
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    (folder / "local_rewards_for_test.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture
def rollout():
    mask = torch.arange(3) < torch.tensor([3, 1, 2])[:, None]
    tokens = TokenBatch(
        torch.ones(1, 1).long(), torch.ones(1, 1).bool(), torch.zeros(3).long(), torch.ones(3, 3).long(), mask
    )
    offsets = (((0, 3), (3, 7), (7, 7)), ((0, 0),), ((0, 4), (4, 5)))
    return Rollout((Prompt("p", "why", {"question": "q"}, (1,)),), tokens, (True, True, False), TEXTS, offsets)


def reward(name: str, **settings) -> LocalReward:
    return LocalReward(RewardSettings(function=f"local_rewards_for_test:{name}", **settings), "rewards.0")


@pytest.mark.parametrize(("name", "expected"), [("words", [2, 0, 1]), ("chars", [7, 0, 5]), ("scorer", [7, 7, 7])])
def test_sync_async_and_objects(module, rollout, name, expected):
    scores = reward(name).score(rollout)
    assert [score.sequence_score for score in scores] == expected
    assert [[(s.start, s.end, s.score) for s in score.segments] for score in scores] == [
        [(0, 7, expected[0])],
        [],  # a blank response has no segment; its score stands for the whole
        [(0, 5, expected[2])],
    ]
    assert {score.runtime for score in scores} == {"python"}


def test_a_function_sees_the_sample(module, rollout):
    import local_rewards_for_test as local

    local.calls.clear()
    reward("words", batch_size=2).score(rollout)
    assert [len(samples) for samples in local.calls] == [2, 1]
    first, last = local.calls[0][0], local.calls[1][0]
    assert (first.prompt, first.response, dict(first.fields)) == ("why", "one two", {"question": "q"})
    assert (first.length_tokens, first.finished, last.length_tokens, last.finished) == (3, True, 2, False)


def test_segments(module, rollout):
    first, second, third = reward("spans", granularity="sentence").score(rollout)
    assert [(s.start, s.end, s.score) for s in first.segments] == [(0, 3, 0.5), (4, 7, -1.0)]
    assert first.sequence_score == -0.25
    assert (second.segments, second.sequence_score, third.segments) == ([], None, [])


@pytest.mark.parametrize(
    ("name", "settings", "codes"),
    [
        ("odd", {}, ["model_failed", "model_failed", None]),
        ("wrong_type", {}, ["model_failed", "model_failed", None]),
        ("short", {}, ["model_failed"] * 3),
        ("picky", {}, ["model_failed"] * 3),
        ("picky", {"batch_size": 1}, [None, "model_failed", None]),
        ("bad_spans", {"granularity": "sentence"}, ["model_failed", None, "model_failed"]),
        ("words", {"granularity": "sentence"}, ["model_failed"] * 3),
        ("stuck", {"timeout_s": 0.05}, ["deadline_exceeded"] * 3),
        ("stuck_too", {"timeout_s": 0.05, "batch_size": 2}, ["deadline_exceeded"] * 3),
    ],
)
def test_what_is_no_score_is_an_error_and_never_a_number(module, rollout, name, settings, codes):
    scores = reward(name, **settings).score(rollout)
    assert [score.error.code if score.error else None for score in scores] == codes
    for score in scores:
        if score.error:
            assert (score.segments, score.sequence_score) == (None, None)
            assert score.error.retryable == (score.error.code in (ErrorCode.MODEL_FAILED, ErrorCode.DEADLINE_EXCEEDED))


def test_batches_run_side_by_side_where_that_is_allowed(module, rollout, monkeypatch):
    """Each of the three calls waits for the other two, which would never come one after the other."""
    together = threading.Barrier(3)
    import local_rewards_for_test as local

    def meet(samples):
        together.wait(30)
        return [1.0] * len(samples)

    monkeypatch.setattr(local, "words", meet)
    scores = reward("words", batch_size=1, concurrency=3).score(rollout)
    assert [score.sequence_score for score in scores] == [1.0] * 3


def test_an_async_function_may_be_scored_inside_a_running_loop(module, rollout):
    async def outside():
        return reward("chars").score(rollout)

    assert [score.sequence_score for score in asyncio.run(outside())] == [7, 0, 5]


def test_the_version_follows_the_file_and_the_name(module, tmp_path, monkeypatch):
    (tmp_path / "changing_reward.py").write_text("def a(samples): return []\ndef b(samples): return []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = [
        LocalReward(RewardSettings(function=f"changing_reward:{name}"), "rewards.0").version for name in ("a", "b", "a")
    ]
    assert versions[0] == versions[2] != versions[1]
    (tmp_path / "changing_reward.py").write_text("def a(samples): return [0.0]\n")
    assert LocalReward(RewardSettings(function="changing_reward:a"), "rewards.0").version != versions[0]


def test_modules_of_the_current_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "reward_in_cwd.py").write_text("def f(samples): return []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/usr/lib"])
    assert load_function("reward_in_cwd:f")([]) == []


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("no_such_module:f", "cannot import no_such_module"),
        ("local_rewards_for_test:nothing", "has no nothing"),
        ("local_rewards_for_test:calls", "is not a function but list"),
    ],
)
def test_a_function_that_is_not_there_is_a_fault_of_the_settings(module, reference, fault):
    with pytest.raises(ConfigError, match=rf"rewards\.3\.function: .*{fault}"):
        LocalReward(RewardSettings(function=reference), "rewards.3")
