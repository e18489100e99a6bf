import pytest
from pydantic import ValidationError

from rl_client.training.settings_rewards import RewardSettings, check_rewards


def test_names():
    assert RewardSettings(model="relevance@latest").name == "relevance"
    assert RewardSettings(function="my.rewards:Brevity.score").name == "score"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "either a model or a function"),
        ({"model": "a", "function": "m:f"}, "either a model or a function"),
        ({"model": "a", "timeout_s": 3, "granularity": "sentence"}, "only a function takes granularity, timeout_s"),
        ({"function": "m:f", "shaping": "probability"}, "probability is for served classifiers"),
        ({"function": "m"}, "pattern"),
        ({"function": "m:f", "calibration": {"mean": 0, "std": 0}}, "greater than 0"),
    ],
)
def test_what_is_no_source(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        RewardSettings(**settings)


@pytest.mark.parametrize(
    ("rewards", "fault"),
    [
        ([{"model": "a"}, {"function": "m:a"}], "more than once: a"),
        ([{"function": "m:length_penalty"}], "cannot be called length_penalty"),
        ([{"model": "a"}, {"function": "m:f"}], "need a service"),
    ],
)
def test_sources_that_do_not_fit_together(rewards, fault):
    with pytest.raises(ValueError, match=fault):
        check_rewards(tuple(RewardSettings(**reward) for reward in rewards), has_service=False)


def test_functions_need_no_service():
    check_rewards((RewardSettings(function="m:f"), RewardSettings(function="m:g")), has_service=False)
