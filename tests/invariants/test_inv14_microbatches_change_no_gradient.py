"""Invariant 14, for the models: micro-batch size and padding change no gradient."""

from contextlib import nullcontext

import pytest
import torch

from rl_client.rollout.generate import generate
from rl_client.rollout.stages import TokenBatch, TrainBatch
from rl_client.training.config import GenerationSettings, PpoSettings
from rl_client.training.models import PolicyModel
from rl_client.training.ppo_step import Trainee, accumulate_gradients


@pytest.fixture
def batch(policy, tokenizer, prompts) -> TrainBatch:
    tokens = generate(
        policy, tokenizer, prompts, GenerationSettings(max_new_tokens=7, samples_per_prompt=2), seed=2
    ).tokens
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(tokens.response_mask.shape, generator=generator) * tokens.response_mask for _ in range(4)]
    return TrainBatch(tokens, noise[0] - 2.5, *noise[1:])


def pad_more(batch: TrainBatch) -> TrainBatch:
    t = batch.tokens

    def widen(x, value):
        return torch.nn.functional.pad(x, (0, 3), value=value)

    tokens = TokenBatch(
        widen(t.prompt_ids, 9),
        widen(t.prompt_mask, False),
        t.prompt_index,
        widen(t.response_ids, 9),
        widen(t.response_mask, False),
    )
    columns = (batch.old_logprobs, batch.old_values, batch.advantages, batch.returns)
    return TrainBatch(tokens, *(widen(column, 7.0) for column in columns))


def gradients(policy: PolicyModel, value, batch: TrainBatch, **limits: int):
    settings = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=8, **limits)
    for model in (policy, value):
        model.zero_grad(set_to_none=True)
    figures = accumulate_gradients(
        Trainee(policy, value, None, None), batch, settings,
        temperature=0.7, update_policy=True, precision=nullcontext(),
    )  # fmt: skip
    found = [p.grad.clone() for model in (policy, value) for p in model.parameters() if p.grad is not None]
    return found, figures


@pytest.mark.parametrize(
    "limits", [*({"microbatch_size": n} for n in (1, 3, 5)), *({"microbatch_tokens": n} for n in (1, 20, 35))]
)
def test_any_microbatches_give_the_gradient_of_the_whole(policy, value, batch, limits):
    whole, figures = gradients(policy, value, batch)
    parts, part_figures = gradients(policy, value, batch, **limits)
    assert any(gradient.abs().max() > 1e-3 for gradient in whole)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)
    assert part_figures == pytest.approx(figures, rel=1e-4, abs=1e-6)


def test_more_padding_gives_the_same_gradient(policy, value, batch):
    plain, figures = gradients(policy, value, batch)
    settings = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=8)
    for model in (policy, value):
        model.zero_grad(set_to_none=True)
    # Straight into the losses: `select` would trim the padding away again.
    wide = pad_more(batch)
    TrainBatchView = type("Untrimmed", (), {"tokens": wide.tokens, "select": lambda self, rows: wide})
    padded_figures = accumulate_gradients(
        Trainee(policy, value, None, None), TrainBatchView(), settings,
        temperature=0.7, update_policy=True, precision=nullcontext(),
    )  # fmt: skip
    padded = [p.grad.clone() for model in (policy, value) for p in model.parameters() if p.grad is not None]
    for a, b in zip(padded, plain, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)
    assert padded_figures == pytest.approx(figures, rel=1e-4, abs=1e-6)
