"""What is lent and when; how weights are divided `test_sharding.py` tells: it takes two processes."""

from contextlib import suppress

import torch

from rl_client.training.whole_models import LentModel, WholeModels


def test_models_that_are_not_divided_are_what_trains(policy, value):
    models = WholeModels(policy, policy, value)
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    with models.gathered():
        assert models.policy is policy
    for name, weight in policy.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_lent_model_has_weights_within_alone(policy):
    """Also when what it was lent for fails, and tied weights are lent once."""
    twin = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(2, 3))
    twin[1].weight = twin[0].weight
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(3), "1.bias": torch.full((3,), 5.0)}
    lent = LentModel(twin, lambda: weights)
    lent.empty()
    models = WholeModels(policy, policy, policy, [lent])
    with suppress(KeyError), models.gathered():
        assert twin[0](torch.ones(1, 2)).tolist() == [[2.0] * 3]
        assert twin[1](torch.ones(1, 2)).tolist() == [[7.0] * 3]
        raise KeyError
    assert [weight.numel() for weight in twin.parameters()] == [0, 0, 0]
    weights["0.weight"] = torch.full((3, 2), 2.0)
    with models.gathered():
        assert twin[1](torch.ones(1, 2)).tolist() == [[9.0] * 3]
