import json

import pytest
import torch

from rl_client.training.kl_control import KlControl
from rl_client.training.settings_kl import KlSettings


@pytest.mark.parametrize(
    ("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", 0.10653066)]
)  # e^-0.5 - 1 + 0.5
def test_the_estimators_of_one_token_by_hand(estimator, expected):
    control = KlControl(KlSettings(estimator=estimator), 0.1)
    found = control.estimate(torch.tensor([-1.0]), torch.tensor([-1.5]))
    assert float(found) == pytest.approx(expected)


def test_the_coefficient_follows_the_kl_by_hand():
    """Errors 0.1, over 0.2, under -0.2, gain 0.1."""
    control = KlControl(KlSettings(target=5.0), 0.2)
    for kl, factor in ((5.5, 1.01), (50.0, 1.02), (-3.0, 0.98)):
        before = control.coefficient
        control.follow({"kl": kl})
        assert control.coefficient == pytest.approx(before * factor)


def test_without_a_target_or_a_kl_it_stays():
    control = KlControl(KlSettings(), 0.2)
    control.follow({"kl": 50.0})
    assert control.coefficient == 0.2
    control = KlControl(KlSettings(target=1.0), 0.2)
    control.follow({"kl": None})
    assert control.coefficient == 0.2


def test_it_goes_on_to_the_bit():
    control = KlControl(KlSettings(target=3.0), 0.1)
    control.follow({"kl": 3.1})
    other = KlControl(KlSettings(target=3.0), 0.1)
    other.unpack(json.loads(json.dumps(control.pack())))
    assert other.coefficient == control.coefficient != 0.1
