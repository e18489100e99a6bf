import torch

from rl_client.training.models import load_value
from rl_client.training.shared_value import SharedValueModel
from tests.rl_client.tiny_models import make_batch, make_policy, make_tokenizer


def with_random_head(policy) -> SharedValueModel:
    value = SharedValueModel(policy)
    torch.nn.init.normal_(value.head.weight, generator=torch.Generator().manual_seed(0))
    return value


def test_a_new_head_gives_zero_everywhere():
    assert torch.equal(SharedValueModel(make_policy("llama"))(make_batch()), torch.zeros(3, 3))


def test_values_are_read_from_the_policys_states_given_or_not():
    policy, tokens = make_policy("llama"), make_batch()
    value = with_random_head(policy)
    states = policy.states(tokens)
    expected = states @ value.head.weight[0] + value.head.bias
    torch.testing.assert_close(value(tokens, states), expected)
    torch.testing.assert_close(value(tokens), expected)


def test_the_head_alone_is_its_own():
    value = with_random_head(make_policy("t5"))
    assert set(value.state_dict()) == {"head.weight", "head.bias"}
    assert len(list(value.parameters())) == 2


def test_the_value_loss_reaches_the_body_unless_the_states_carry_no_gradient():
    policy, tokens = make_policy("llama"), make_batch()
    value = with_random_head(policy)
    body = policy.network.model.layers[0].self_attn.q_proj.weight
    value(tokens, policy.states(tokens).detach()).sum().backward()
    assert body.grad is None
    assert value.head.weight.grad.abs().sum() > 0
    value(tokens, policy.states(tokens)).square().sum().backward()
    assert body.grad.abs().sum() > 0


def test_the_saved_model_is_a_value_model_with_a_body_of_its_own(tmp_path):
    policy, tokens = make_policy("llama"), make_batch()
    value = with_random_head(policy)
    value.save(tmp_path, make_tokenizer("llama"))
    torch.testing.assert_close(load_value(tmp_path)(tokens), value(tokens), atol=1e-6, rtol=1e-5)
