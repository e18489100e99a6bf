import torch

from rl_client.training.shards import is_divided, part_like, settle, whole


def test_a_whole_tensor_is_its_own_part():
    """Of divided ones `test_sharding.py` tells: it takes two processes."""
    tensor = torch.arange(3.0)
    assert not is_divided(tensor)
    assert whole(tensor) is tensor
    assert part_like(tensor, torch.zeros(3)) is tensor


def test_a_model_that_is_not_divided_has_nothing_to_let_go_of():
    model = torch.nn.Linear(2, 2)
    weight = model.weight
    settle(model)
    assert model.weight is weight
