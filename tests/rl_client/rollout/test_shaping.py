import pytest

from reward_proto import Calibration, Granularity, ModelKind, ModelScore, ScoreError
from rl_client.api.testing import FakeModel
from rl_client.errors import ConfigError
from rl_client.rollout.shaping import Shaper, make_shapers, segments_of
from rl_client.training.settings_rewards import RewardSettings, Shaping


def info(kind=ModelKind.TOKEN_CLASSIFICATION, calibration=None, labels=None):
    model = FakeModel("m", score=len, granularity=Granularity.SENTENCE, kind=kind, calibration=calibration).info
    return model.model_copy(update={"labels": labels}) if labels else model


@pytest.mark.parametrize(
    ("shaping", "score", "label", "expected"),
    [
        (Shaping.RAW, 0.25, "error", 0.5 * 0.25),
        (Shaping.CENTERED, 0.25, "error", 0.5 * (0.25 - 0.75)),
        (Shaping.ZSCORE, 0.25, None, 0.5 * (0.25 - 0.75) / 0.2),
        (Shaping.PROBABILITY, 0.25, "error", 0.5 * 0.25),
        (Shaping.SIGN, 0.9, "ok", 0.5),
        (Shaping.SIGN, 0.9, "error", -0.5),
        (Shaping.SIGN, 0.4, "ok", 0.5),  # three classes: ok may win with less than half
        (Shaping.SIGN, 0.5, None, 0.5),
        (Shaping.SIGN, 0.49, None, -0.5),
    ],
)
def test_rewards_by_hand(shaping, score, label, expected):
    assert Shaper("m", 0.5, shaping, mean=0.75, std=0.2).reward(score, label) == pytest.approx(expected)


def test_statistics_come_from_the_service():
    rewards = [RewardSettings(model="m@latest", weight=2.0, shaping=Shaping.ZSCORE)]
    (shaper,) = make_shapers(rewards, {"m": info(calibration=Calibration(mean=1.0, std=4.0))})
    assert shaper.reward(3.0, None) == 2.0 * (3.0 - 1.0) / 4.0


@pytest.mark.parametrize("shaping", [Shaping.ZSCORE, Shaping.CENTERED])
def test_a_missing_calibration_is_a_fault(shaping):
    with pytest.raises(ConfigError, match=r"rewards\.0\.shaping.*needs a calibration"):
        make_shapers([RewardSettings(model="m", shaping=shaping)], {"m": info()})


def test_a_calibration_of_the_settings_goes_before_the_models():
    calibration = {"mean": 3.0, "std": 2.0}
    rewards = [
        RewardSettings(model="m", shaping=Shaping.ZSCORE, calibration=calibration),
        RewardSettings(function="a.b:f", shaping=Shaping.CENTERED, calibration=calibration),
    ]
    model, function = make_shapers(rewards, {"m": info(calibration=Calibration(mean=1.0, std=4.0))})
    assert model.reward(5.0, None) == 1.0
    assert (function.name, function.reward(5.0, None)) == ("f", 2.0)


def test_probability_needs_a_classifier():
    rewards = [RewardSettings(model="m", shaping=Shaping.PROBABILITY)]
    make_shapers(rewards, {"m": info()})
    with pytest.raises(ConfigError, match="needs a classifier"):
        make_shapers(rewards, {"m": info(kind=ModelKind.SEQUENCE_REGRESSION)})


def test_sign_needs_a_class_named_ok():
    with pytest.raises(ConfigError, match="needs a class named 'ok'; it has bad, fine"):
        make_shapers([RewardSettings(model="m", shaping=Shaping.SIGN)], {"m": info(labels=["bad", "fine"])})


def test_a_score_that_is_an_error_has_no_segments():
    error = ScoreError(code="model_failed", message="NaN", retryable=True)
    score = ModelScore(model="m", version="0", runtime="r", granularity="sentence", segments=None, error=error)
    with pytest.raises(ValueError, match="NaN"):
        segments_of(score)
