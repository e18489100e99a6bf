import copy

import torch

from rl_client.training.gradient_checkpointing import checkpoint_layers
from tests.rl_client.tiny_models import make_policy

IDS = torch.tensor([[4, 5, 6, 7, 8, 9]])


def test_every_layer_is_found():
    assert checkpoint_layers(make_policy("llama").network) == 2
    assert checkpoint_layers(make_policy("t5").network) == 3
    assert checkpoint_layers(torch.nn.Linear(2, 2)) == 0


def test_a_copy_computes_with_its_own_layers():
    network = make_policy("llama").network
    checkpoint_layers(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert twin(input_ids=IDS).logits.abs().sum() > 0


def test_less_is_kept_for_the_backward_pass():
    def kept(network) -> int:
        held = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: held.append(tensor.numel()) or tensor, lambda t: t
        ):
            network(input_ids=IDS, use_cache=False)
        return sum(held)

    network = make_policy("llama").network
    before = kept(network)
    checkpoint_layers(network)
    assert kept(network) < before / 2
