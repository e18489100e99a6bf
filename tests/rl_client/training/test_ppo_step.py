import copy

import pytest
import torch

from rl_client.errors import NotFiniteError
from rl_client.rollout.generate import generate
from rl_client.rollout.stages import TrainBatch
from rl_client.training.config import GenerationSettings, PpoSettings
from rl_client.training.experience import estimate
from rl_client.training.models import freeze_copy
from rl_client.training.optim import make_adamw
from rl_client.training.ppo_step import Trainee, minibatches, ppo_update

PPO = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=4, epochs=2, learning_rate=1e-3, value_learning_rate=1e-3)


@pytest.fixture
def trainee(policy, value):
    optimizers = (make_adamw(model, learning_rate=1e-3, weight_decay=0.0, eps=1e-5) for model in (policy, value))
    return Trainee(policy, value, *optimizers)


@pytest.fixture
def batch(trainee, tokenizer, prompts):
    settings = GenerationSettings(max_new_tokens=6, samples_per_prompt=2)
    tokens = generate(trainee.policy, tokenizer, prompts, settings, seed=0).tokens
    found = estimate(
        trainee.policy, freeze_copy(trainee.policy), trainee.value, tokens, temperature=1.0, microbatch_size=8
    )
    noise = [torch.randn(tokens.response_mask.shape, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    advantages, returns = (torch.where(tokens.response_mask, x, 0.0) for x in noise)
    return TrainBatch(tokens, found.logprobs, found.values, advantages, returns)


def weights(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def update(trainee, batch, settings=PPO, **options):
    return ppo_update(trainee, batch, settings, temperature=1.0, seed=5, **options)


def test_minibatches_hold_every_row_once_prompts_together(batch):
    order = torch.cat(list(minibatches(batch, 3, seed=1)))
    assert sorted(order.tolist()) == list(range(8))
    assert [len(rows) for rows in minibatches(batch, 3, seed=1)] == [3, 3, 2]
    prompts = batch.tokens.prompt_index[order].tolist()
    assert prompts[0::2] == prompts[1::2]


def test_the_order_is_seeded_and_fresh(batch):
    orders = {tuple(torch.cat(list(minibatches(batch, 3, seed))).tolist()) for seed in (1, 1, 2, 3)}
    assert len(orders) == 3


def test_one_update_is_one_adam_step_on_the_written_out_loss(trainee, batch):
    """One mini-batch at ratio 1: the gradients of -mean(A * log p) and of half the mean squared value error."""
    policy, value = copy.deepcopy(trainee.policy), copy.deepcopy(trainee.value)
    mask = batch.tokens.response_mask
    logprobs = torch.log_softmax(policy(batch.tokens), -1).gather(-1, batch.tokens.response_ids[..., None])[..., 0]
    (-(batch.advantages * logprobs)[mask].mean()).backward()
    errors = (value(batch.tokens) - batch.returns)[mask]
    (0.7 * 0.5 * errors.square().mean()).backward()  # at the old values the clipped error equals the plain one
    for model in (policy, value):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0).step()
    settings = PPO.model_copy(
        update={
            "epochs": 1,
            "minibatch_size": 8,
            "max_grad_norm": 0.01,
            "value_coefficient": 0.7,
            "value_clip_range": 9.0,
        }
    )
    metrics = update(trainee, batch, settings)
    for found, expected in ((trainee.policy, policy), (trainee.value, value)):
        for a, b in zip(weights(found), weights(expected), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)
    assert metrics["ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["policy_loss"] == pytest.approx(-float(batch.advantages[mask].mean()), abs=1e-5)


def test_the_same_seed_gives_the_same_update(trainee, batch):
    twin = Trainee(*(copy.deepcopy(model) for model in (trainee.policy, trainee.value)), None, None)
    twin = Trainee(
        twin.policy,
        twin.value,
        *(make_adamw(model, learning_rate=1e-3, weight_decay=0.0, eps=1e-5) for model in (twin.policy, twin.value)),
    )
    assert update(trainee, batch) == update(twin, batch)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainee.policy), weights(twin.policy), strict=True))


def test_the_policy_stands_still_while_the_value_model_warms_up(trainee, batch):
    policy, value = weights(trainee.policy), weights(trainee.value)
    metrics = update(trainee, batch, update_policy=False)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainee.policy), policy, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(trainee.value), value, strict=True))
    assert "policy_grad_norm" not in metrics
    assert metrics["value_grad_norm"] > 0


def test_a_poisoned_batch_stops_before_the_update(trainee, batch):
    policy = weights(trainee.policy)
    batch.advantages[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="policy"):
        update(trainee, batch, PPO.model_copy(update={"minibatch_size": 8}))
    assert all(torch.equal(a, b) for a, b in zip(weights(trainee.policy), policy, strict=True))


def test_metrics_are_all_there(trainee, batch):
    assert set(update(trainee, batch)) == {
        "policy_loss",
        "value_loss",
        "clip_fraction",
        "value_clip_fraction",
        "approx_kl",
        "ratio_mean",
        "ratio_max",
        "policy_grad_norm",
        "value_grad_norm",
    }
