import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, JambaConfig, MambaConfig, MistralConfig

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from rl_client.training.models import PolicyModel
from rl_client.training.prompt_cache import can_share_prompts
from tests.rl_client.tiny_models import CAUSAL, EOS, PAD, make_batch, make_policy

SIZES = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2}
WINDOW = 3


def make_windowed() -> PolicyModel:
    """Attends to the last three tokens alone, so that long prompts go out of sight."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "sliding_window": WINDOW}
    config = MistralConfig(**SIZES, **heads, initializer_range=0.2, tie_word_embeddings=True)
    torch.manual_seed(0)
    return PolicyModel(AutoModelForCausalLM.from_config(config).eval())


def read(policy, tokens, *, shared: bool):
    """Last hidden states at real tokens, and the gradients of a loss on them."""
    policy.reader.shares_prompts = shared
    states = policy.states(tokens)[tokens.response_mask]
    names, parameters = zip(*policy.named_parameters(), strict=True)
    # Weighed at random: the norm of a normalised state has no gradient.
    loss = (states * torch.randn(states.shape, generator=torch.Generator().manual_seed(1))).sum()
    return states, dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("make", [lambda: make_policy("gpt2"), lambda: make_policy("llama"), make_windowed])
@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 2]])
def test_states_and_gradients_are_those_of_reading_the_prompt_with_each_response(make, rows):
    policy = make()
    tokens = make_batch().select(torch.tensor(rows))
    states, gradients = read(policy, tokens, shared=True)
    expected, wanted = read(policy, tokens, shared=False)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4, rtol=1e-4)


def count_tokens(network) -> list[tuple[int, ...]]:
    """Rows and tokens of each pass through the body."""
    shapes: list[tuple[int, ...]] = []
    network.get_input_embeddings().register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    return shapes


@pytest.mark.parametrize("family", CAUSAL)
def test_a_prompt_is_read_once_for_all_of_its_responses(family):
    policy = make_policy(family)
    shapes = count_tokens(policy.network)
    policy(make_batch())
    assert shapes == [(2, 4), (3, 2)]


def test_a_prompt_with_one_response_is_read_with_it():
    policy = make_policy("llama")
    shapes = count_tokens(policy.network)
    policy(make_batch().select(torch.tensor([0, 1])))
    assert shapes == [(2, 6)]


def test_responses_of_one_token_need_nothing_but_their_prompts():
    policy = make_policy("llama")
    shapes = count_tokens(policy.network)
    real = torch.ones(2, 1, dtype=torch.bool)
    tokens = TokenBatch(torch.tensor([[4, 5]]), real.T, torch.tensor([0, 0]), torch.tensor([[6], [1]]), real)
    states = policy.states(tokens)
    assert shapes == [(1, 2)]
    assert states.shape == (2, 1, 16)
    assert torch.equal(states[0], states[1])


@pytest.mark.parametrize("make", [lambda: make_policy("gpt2"), lambda: make_policy("llama"), make_windowed])
@pytest.mark.parametrize("written", [None, torch.tensor([[8, 9], [3, 3]])])
def test_samples_of_a_shared_prompt_are_those_of_the_prompt_alone(make, written):
    policy = make()
    ids = torch.tensor([[4, 5, 6, 7, 1], [7, PAD, PAD, PAD, PAD]])
    mask = torch.tensor([[True] * 5, [True, False, False, False, False]])
    config = GenerationConfig(do_sample=False, max_new_tokens=6, eos_token_id=EOS, pad_token_id=PAD)
    alone = policy.sample(ids, mask, config, Steering(written=written))
    shapes = count_tokens(policy.network)
    shared = policy.sample(ids, mask, config, Steering(samples=3, written=written))
    assert torch.equal(shared, alone.repeat_interleave(3, dim=0))
    assert shapes[:2] == [(2, 4 if written is None else 6), (6, 1)]


def test_what_remembers_more_than_keys_and_values_is_read_as_before():
    mamba = AutoModelForCausalLM.from_config(MambaConfig(**SIZES, state_size=4))
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "attn_layer_offset": 1}
    jamba = AutoModelForCausalLM.from_config(JambaConfig(**SIZES, **heads, attn_layer_period=2, num_experts=1))
    assert not can_share_prompts(mamba)
    assert not can_share_prompts(jamba)
    assert can_share_prompts(make_windowed().network)
