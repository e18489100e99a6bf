import pytest
import torch
from transformers import GenerationConfig

from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from tests.rl_client.tiny_models import make_policy

PROMPT = torch.tensor([[4, 5, 1], [7, 8, 1]])
REAL = torch.ones_like(PROMPT).bool()


def count_rows(network) -> dict[str, list[int]]:
    """Rows that go through the encoder, and through the first decoder layer's projection of its states."""
    rows = {"encoder": [], "keys": []}
    encoder = network.get_encoder()
    encoder.register_forward_hook(lambda module, inputs, output: rows["encoder"].append(len(output.last_hidden_state)))
    keys = network.decoder.block[0].layer[1].EncDecAttention.k
    keys.register_forward_hook(lambda module, inputs, output: rows["keys"].append(len(output)))
    return rows


def test_a_prompt_is_encoded_and_projected_once_for_all_of_its_responses():
    policy = make_policy("t5")
    rows = count_rows(policy.network)
    response = torch.tensor([[6, 7, 1]] * 5)
    policy(TokenBatch(PROMPT, REAL, torch.tensor([0, 0, 0, 1, 1]), response, torch.ones_like(response).bool()))
    assert rows == {"encoder": [2], "keys": [2]}


def test_and_so_it_is_while_sampling():
    policy = make_policy("t5")
    rows = count_rows(policy.network)
    config = GenerationConfig(do_sample=False, max_new_tokens=4, min_new_tokens=4, eos_token_id=1, pad_token_id=0)
    assert policy.sample(PROMPT, REAL, config, Steering(samples=3)).shape == (6, 4)
    assert rows == {"encoder": [2], "keys": [2]}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_samples_of_a_shared_prompt_are_those_of_the_prompt_alone(family):
    policy = make_policy(family)
    config = GenerationConfig(do_sample=False, max_new_tokens=6, eos_token_id=1, pad_token_id=0)
    alone = policy.sample(PROMPT, REAL, config)
    shared = policy.sample(PROMPT, REAL, config, Steering(samples=3))
    assert torch.equal(shared, alone.repeat_interleave(3, dim=0))
