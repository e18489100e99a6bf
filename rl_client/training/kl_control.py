"""The price of leaving the reference: which estimator, and a coefficient that may follow the KL."""

from collections.abc import Mapping
from typing import Any

from rl_client.algorithms.kl import KlEstimate, adapted_kl_coefficient, kl_k1, kl_k2, kl_k3
from rl_client.training.metric_log import Metrics
from rl_client.training.settings_kl import KlEstimator, KlSettings

ESTIMATES: dict[KlEstimator, KlEstimate] = {KlEstimator.K1: kl_k1, KlEstimator.K2: kl_k2, KlEstimator.K3: kl_k3}


class KlControl:
    """The coefficient as it stands; a part of the run's state.

    Attributes:
        coefficient: What the next step's tokens pay for a nat.
    """

    def __init__(self, settings: KlSettings, coefficient: float) -> None:
        """Begin a run.

        Args:
            settings: Estimator, target and gain.
            coefficient: That of the first step, and of all without a target.
        """
        self._settings = settings
        self.coefficient = coefficient

    @property
    def estimate(self) -> KlEstimate:
        """The function of `algorithms.kl` that tokens pay by."""
        return ESTIMATES[self._settings.estimator]

    def follow(self, metrics: Metrics) -> None:
        """Move the coefficient after a step by its `kl`, the mean over responses of the sum of log-ratios."""
        kl = metrics["kl"]
        if self._settings.target is not None and kl is not None:
            self.coefficient = adapted_kl_coefficient(
                self.coefficient, kl, target=self._settings.target, gain=self._settings.gain
            )

    def pack(self) -> dict[str, Any]:
        """JSON values, exact to the bit."""
        return {"coefficient": self.coefficient}

    def unpack(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.coefficient = saved["coefficient"]
