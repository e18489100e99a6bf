"""Settings of what keeps the policy near its reference."""

from enum import StrEnum

from rl_client.training.settings_base import Positive, Settings, Share


class KlEstimator(StrEnum):
    """What a token pays for, times the coefficient; `algorithms.kl` defines each."""

    K1 = "k1"
    K2 = "k2"
    K3 = "k3"


class KlSettings(Settings):
    """The estimator, and the control of its coefficient; without `target` that stays `ppo.kl_coefficient`."""

    estimator: KlEstimator = KlEstimator.K1
    target: Positive | None = None
    gain: Share = 0.1
