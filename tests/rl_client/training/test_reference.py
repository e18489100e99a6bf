import torch

from rl_client.training.reference import make_reference
from rl_client.training.settings_models import LoraSettings
from tests.rl_client.tiny_models import make_batch, make_policy, stir


def test_without_an_adapter_it_is_a_copy_that_does_not_follow():
    policy, tokens = make_policy("llama"), make_batch()
    reference = make_reference(policy)
    before = reference(tokens)
    stir(policy)
    assert torch.equal(reference(tokens), before)
    assert not any(parameter.requires_grad for parameter in reference.parameters())


@torch.no_grad()  # torch picks kernels by whether a gradient is wanted
def test_with_an_adapter_it_is_the_same_weights_and_does_not_follow_either():
    policy, tokens = make_policy("llama"), make_batch()
    before = policy.requires_grad_(False)(tokens)
    policy.add_adapter(LoraSettings(rank=2), seed=0)
    reference = make_reference(policy)
    stir(policy)
    assert torch.equal(reference(tokens), before)
    assert not torch.allclose(policy(tokens), before, atol=1e-3)
    assert reference.network is policy.network
    assert list(reference.parameters()) == []  # nothing of it is trained, saved or moved


def test_a_gradient_through_the_policy_survives_a_look_at_the_reference():
    policy, tokens = make_policy("llama"), make_batch()
    policy.add_adapter(LoraSettings(rank=2), seed=0)
    stir(policy)
    reference = make_reference(policy)
    loss = policy(tokens).square().sum()
    assert not reference(tokens).requires_grad
    loss.backward()
    found = [parameter.grad for parameter in policy.parameters() if parameter.requires_grad]
    policy.zero_grad(set_to_none=True)
    policy(tokens).square().sum().backward()
    expected = [parameter.grad for parameter in policy.parameters() if parameter.requires_grad]
    assert len(found) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@torch.no_grad()  # torch picks kernels by whether a gradient is wanted
def test_an_adapter_on_the_vocabulary_head_is_off_as_well():
    policy, tokens = make_policy("qwen2"), make_batch()
    before = policy.requires_grad_(False)(tokens)
    policy.add_adapter(LoraSettings(rank=2, target_modules=("lm_head", "q_proj")), seed=0)
    reference = make_reference(policy)
    stir(policy)
    assert torch.equal(reference(tokens), before)
