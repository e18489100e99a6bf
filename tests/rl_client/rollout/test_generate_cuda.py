"""Sampling on a CUDA device."""

import pytest
import torch
from transformers import GenerationConfig

from rl_client.rollout.generate import generate
from rl_client.rollout.prompts import PromptRecord, pad_prompts, tokenize_prompts
from rl_client.rollout.sampling import Steering
from rl_client.training.config import GenerationSettings
from tests.rl_client.tiny_models import EOS, PAD, make_policy, make_tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

DEVICE = torch.device("cuda")
FAMILIES = ["t5", "bart", "gpt2", "llama", "qwen2"]


@pytest.fixture
def prompts(family):
    texts = ("red good .", "blue", "one two one two bad", "plain , red , blue .")
    records = [PromptRecord(id=f"p{i}", prompt=text, fields={"question": text}) for i, text in enumerate(texts)]
    return tokenize_prompts(records, make_tokenizer(family), max_prompt_tokens=16, cut_prompt=False)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def policy(family):
    return make_policy(family).to(DEVICE)


def sample(policy, family, prompts, seed=0, **changes):
    settings = GenerationSettings.model_validate({"max_new_tokens": 8, "samples_per_prompt": 3, **changes})
    return generate(policy, make_tokenizer(family), prompts, settings, seed=seed)


def test_the_same_seed_gives_the_same_responses_and_no_other_chance_is_used(policy, family, prompts):
    state = torch.cuda.get_rng_state()
    first = sample(policy, family, prompts)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.cuda.manual_seed(5)
    again, other = sample(policy, family, prompts), sample(policy, family, prompts, seed=1)
    assert torch.equal(first.tokens.response_ids, again.tokens.response_ids)
    assert other.texts != first.texts
    assert first.tokens.response_ids.device.type == "cpu"


def test_samples_of_a_prompt_differ(policy, family, prompts):
    texts = sample(policy, family, prompts, samples_per_prompt=16).texts
    assert len(set(texts[:16])) > 1


def test_greedy_responses_are_the_likeliest_by_teacher_forcing(policy, family, prompts):
    rollout = sample(policy, family, prompts, greedy=True, samples_per_prompt=1)
    tokens = rollout.tokens.to(DEVICE)
    with torch.no_grad():
        logits = policy(tokens).float()
    chosen = logits.gather(-1, tokens.response_ids.unsqueeze(-1)).squeeze(-1)
    short = (logits.amax(dim=-1) - chosen)[tokens.response_mask]
    assert float(short.max()) < 1e-4


@torch.no_grad()
def test_samples_of_a_shared_prompt_are_those_of_the_prompt_alone(policy, prompts):
    ids, mask = (rows.to(DEVICE) for rows in pad_prompts(prompts, PAD))
    config = GenerationConfig(do_sample=False, max_new_tokens=6, eos_token_id=EOS, pad_token_id=PAD)
    alone = policy.sample(ids, mask, config)
    shared = policy.sample(ids, mask, config, Steering(samples=3))
    assert torch.equal(shared, alone.repeat_interleave(3, dim=0))
