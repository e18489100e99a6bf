import torch

from rl_client.rollout.stages import TokenBatch
from tests.rl_client.tiny_models import make_policy


def test_a_prompt_is_encoded_and_projected_once_for_all_of_its_responses():
    policy = make_policy("t5")
    rows = {"encoder": [], "keys": []}
    encoder = policy.network.get_encoder()
    encoder.register_forward_hook(lambda module, inputs, output: rows["encoder"].append(len(output.last_hidden_state)))
    keys = policy.network.decoder.block[0].layer[1].EncDecAttention.k
    keys.register_forward_hook(lambda module, inputs, output: rows["keys"].append(len(output)))
    response = torch.tensor([[6, 7, 1]] * 5)
    prompt = torch.tensor([[4, 5, 1], [7, 8, 1]])
    real = torch.ones_like(prompt).bool()
    policy(TokenBatch(prompt, real, torch.tensor([0, 0, 0, 1, 1]), response, torch.ones_like(response).bool()))
    assert rows == {"encoder": [2], "keys": [2]}
