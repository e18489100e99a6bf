from contextlib import nullcontext

import pytest
import torch

from rl_client.rollout.stages import Prompt
from rl_client.training.demonstrations import Demonstration, collate_demonstrations
from rl_client.training.sft_step import held_out_loss, token_losses

DEMONSTRATIONS = [
    Demonstration(Prompt(f"d{i}", "", {}, prompt), response)
    for i, (prompt, response) in enumerate([((4, 5, 1), (6, 7, 1)), ((8, 1), (1,)), ((9, 3, 4, 1), (5, 1))])
]


def test_losses_are_those_of_transformers_for_each_pair_alone(policy):
    tokens = collate_demonstrations(DEMONSTRATIONS, pad_id=0)
    losses = token_losses(policy(tokens), tokens)
    assert losses.shape == (6,)
    expected = [
        policy.network(input_ids=torch.tensor([d.prompt.input_ids]), labels=torch.tensor([d.response_ids])).loss
        * len(d.response_ids)
        for d in DEMONSTRATIONS
    ]
    assert float(losses.detach().sum()) == pytest.approx(float(sum(expected).detach()), rel=1e-5)


def test_the_held_out_loss_is_a_mean_over_tokens_whatever_the_batches(policy):
    policy.train()
    found = [
        held_out_loss(policy, DEMONSTRATIONS, batch_size=size, pad_id=0, precision=nullcontext()) for size in (1, 2, 3)
    ]
    assert policy.training
    policy.eval()
    tokens = collate_demonstrations(DEMONSTRATIONS, pad_id=0)
    expected = float(token_losses(policy(tokens), tokens).detach().mean())
    assert found == pytest.approx([expected] * 3, rel=1e-5)
