"""A PPO step's figures and gradients on a CUDA device, against the same on the CPU in fp32."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
import transformers
from torch import Tensor

from rl_client.rollout.stages import ScoredRollout, TokenBatch
from rl_client.training.config import PpoSettings, Precision
from rl_client.training.experience import estimate, make_train_batch
from rl_client.training.models import PolicyModel, ValueModel
from rl_client.training.optim import autocast, make_adamw
from rl_client.training.ppo_step import Trainee, accumulate_gradients
from rl_client.training.reference import make_reference
from rl_client.training.settings_models import NetworkSettings
from rl_client.training.shared_value import SharedValueModel
from tests.rl_client.tiny_models import stir

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

CPU, DEVICE = torch.device("cpu"), torch.device("cuda")
WORDS = 2000
PROMPTS, SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 4, 3, 40, 24
TEMPERATURE = 0.7
PPO = PpoSettings(steps=1, prompts_per_step=PROMPTS, minibatch_size=PROMPTS * SAMPLES, microbatch_size=5)
FP32, BF16 = 1e-4, 0.1
"""Of gradients, by their norm; of figures by the larger of them and 1. In bf16 a product keeps 8 bits."""

IDS = {"vocab_size": WORDS, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
CONFIGS = {
    "t5": transformers.T5Config(
        **IDS, d_model=128, d_kv=32, d_ff=256, num_heads=4, num_layers=2, num_decoder_layers=3,
        decoder_start_token_id=0,
    ),
    "llama": transformers.LlamaConfig(
        **IDS, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.08,
    ),
}  # fmt: skip


@dataclass
class Step:
    """What a step gave."""

    figures: dict[str, float]
    policy_gradient: Tensor
    value_gradient: Tensor


def make_tokens() -> TokenBatch:
    """Prompts and responses of unlike lengths, those of one prompt together."""
    generator = torch.Generator().manual_seed(3)

    def rows(count: int, width: int) -> tuple[Tensor, Tensor]:
        lengths = torch.randint(1, width + 1, (count, 1), generator=generator)
        lengths[0] = width
        mask = torch.arange(width) < lengths
        return torch.randint(3, WORDS, (count, width), generator=generator) * mask, mask

    index = torch.arange(PROMPTS).repeat_interleave(SAMPLES)
    prompts, responses = rows(PROMPTS, PROMPT_TOKENS), rows(PROMPTS * SAMPLES, NEW_TOKENS)
    return TokenBatch(*prompts, index, *responses)


def build(family: str, options: dict[str, object], device: torch.device) -> tuple[Trainee, PolicyModel]:
    """A policy that has left its reference, and a value model; the same numbers on any device."""
    settings = NetworkSettings.model_validate({key: value for key, value in options.items() if key != "value_trunk"})
    auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = auto.from_config(copy.deepcopy(CONFIGS[family])).eval()
    other_body = copy.deepcopy(network)
    policy = PolicyModel(network)
    if settings.lora is not None:
        policy.add_adapter(settings.lora, seed=0)
    reference = make_reference(policy)
    stir(policy, 0.02)
    value = SharedValueModel(policy) if options.get("value_trunk") == "shared" else ValueModel(other_body)
    torch.nn.init.normal_(value.head.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    for model in (policy, reference, value):
        model.to(device)
    policy.prepare(settings)
    optimizers = (make_adamw(model, learning_rate=1e-3, weight_decay=0.0, eps=1e-5) for model in (policy, value))
    return Trainee(policy, value, *optimizers), reference


def take_step(family: str, device: torch.device, precision: Precision = Precision.FP32, **options: object) -> Step:
    """Estimates, advantages and the gradients of one mini-batch."""
    trainee, reference = build(family, options, device)
    tokens = make_tokens().to(device)
    context = autocast(device, precision)
    with context:
        estimates = estimate(
            trainee.policy, reference, trainee.value, tokens,
            temperature=TEMPERATURE, microbatch_size=5, exact_kl_tokens=50,
        )  # fmt: skip
    mask = tokens.response_mask.cpu()
    rewards = torch.randn(mask.shape, generator=torch.Generator().manual_seed(5)) * mask
    failed = torch.zeros(len(mask), dtype=torch.bool)
    failed[4] = True
    scored = ScoredRollout(None, rewards, failed, {}, {})  # type: ignore[arg-type]
    batch, figures = make_train_batch(scored, tokens, estimates, PPO)
    assert batch.advantages.device.type == device.type
    figures |= accumulate_gradients(
        trainee, batch, PPO, temperature=TEMPERATURE, update_policy=True, precision=context
    )  # fmt: skip
    gradients = [
        torch.cat(
            [
                torch.zeros(each.numel()) if each.grad is None else each.grad.cpu().flatten()
                for each in model.parameters()
            ]
        )
        for model in (trainee.policy, trainee.value)
    ]
    return Step({name: float(value) for name, value in figures.items()}, *gradients)


def flat_gradient(model: torch.nn.Module) -> Tensor:
    """All gradients in a row, 0 where a parameter has none."""
    parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in model.parameters()]
    return torch.cat([part.flatten().cpu() for part in parts])


def distance(found: Tensor, expected: Tensor) -> float:
    """Of two gradients, in norms of the expected one."""
    assert expected.norm() > 0
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def compare(found: Step, expected: Step, tolerance: float) -> None:
    for name, value in expected.figures.items():
        assert abs(found.figures[name] - value) <= tolerance * max(1.0, abs(value)), name
    differences = {
        "policy": distance(found.policy_gradient, expected.policy_gradient),
        "value": distance(found.value_gradient, expected.value_gradient),
    }
    print("relative distance of gradients:", {name: f"{value:.1e}" for name, value in differences.items()})
    assert all(value <= tolerance for value in differences.values()), differences


OPTIONS = {
    "plain": {},
    "recomputed": {"gradient_checkpointing": True},
    "adapter": {"lora": {"rank": 4, "alpha": 8}},
    "shared_trunk": {"value_trunk": "shared"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("family", CONFIGS)
def test_figures_and_gradients_in_fp32_are_those_of_the_cpu(family: str, options: dict[str, object]) -> None:
    compare(take_step(family, DEVICE, **options), take_step(family, CPU, **options), FP32)


@pytest.mark.parametrize("family", CONFIGS)
def test_compiled_networks_give_the_same(family: str) -> None:
    compare(take_step(family, DEVICE, compile=True), take_step(family, CPU), FP32)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("family", CONFIGS)
def test_bf16_is_near_fp32(family: str, options: dict[str, object]) -> None:
    compare(take_step(family, DEVICE, Precision.BF16, **options), take_step(family, CPU, **options), BF16)


@pytest.mark.parametrize("family", CONFIGS)
def test_log_probabilities_in_chunks_are_those_of_whole_logits(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = build(family, {}, DEVICE)[0].policy
    tokens = make_tokens().to(DEVICE)
    whole = torch.log_softmax(policy(tokens).float() / TEMPERATURE, dim=-1)
    expected = torch.where(
        tokens.response_mask, whole.gather(-1, tokens.response_ids.unsqueeze(-1)).squeeze(-1), 0.0
    )  # fmt: skip
    monkeypatch.setattr("rl_client.training.models.LOGITS_AT_ONCE", 7 * WORDS)
    states = policy.states(tokens)
    torch.testing.assert_close(
        policy.logprobs(states, tokens, temperature=TEMPERATURE), expected, rtol=0, atol=2e-5
    )  # fmt: skip
    again, entropy = policy.logprobs_and_entropy(states, tokens, temperature=TEMPERATURE)
    torch.testing.assert_close(again, expected, rtol=0, atol=2e-5)
    wanted = torch.where(tokens.response_mask, -(whole.exp() * whole).sum(dim=-1), 0.0)
    torch.testing.assert_close(entropy, wanted, rtol=1e-4, atol=1e-4)


def test_chunks_keep_the_logits_out_of_memory() -> None:
    """Of 16 x 512 tokens and 50,000 words: the logits alone would be 1.6 GB, and as much again for their gradient."""
    words, rows, length = 50_000, 16, 512
    config = transformers.LlamaConfig(
        **(IDS | {"vocab_size": words}), hidden_size=64, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    policy = PolicyModel(transformers.LlamaForCausalLM(config).eval()).to(DEVICE)
    real = torch.ones(rows, length, dtype=torch.bool)
    prompt = torch.full((1, 8), 5)
    ids = torch.randint(3, words, (rows, length))
    tokens = TokenBatch(prompt, torch.ones_like(prompt).bool(), torch.zeros(rows, dtype=torch.long), ids, real)
    tokens = tokens.to(DEVICE)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    policy.logprobs(policy.states(tokens), tokens, temperature=1.0).sum().backward()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < rows * length * words * 4 / 4


def test_a_prompt_is_read_once_for_its_responses_and_changes_nothing() -> None:
    trainee, _ = build("t5", {}, DEVICE)
    encoded: list[int] = []
    hook = trainee.policy.network.get_encoder().register_forward_hook(
        lambda module, inputs, output: encoded.append(len(output.last_hidden_state))
    )
    tokens = make_tokens().to(DEVICE)
    shared = trainee.policy.states(tokens)
    again = TokenBatch(
        tokens.prompt_ids[tokens.prompt_index],
        tokens.prompt_mask[tokens.prompt_index],
        torch.arange(len(tokens), device=DEVICE),
        tokens.response_ids,
        tokens.response_mask,
    )
    apart = trainee.policy.states(again)
    hook.remove()
    assert encoded == [PROMPTS, PROMPTS * SAMPLES]
    torch.testing.assert_close(shared[tokens.response_mask], apart[tokens.response_mask], rtol=1e-4, atol=1e-4)


def test_an_update_leaves_no_memory_behind() -> None:
    trainee, reference = build("t5", {}, DEVICE)
    tokens = make_tokens().to(DEVICE)
    held = []
    for _ in range(3):
        estimates = estimate(trainee.policy, reference, trainee.value, tokens, temperature=TEMPERATURE)
        scored = ScoredRollout(None, torch.zeros(tokens.response_mask.shape), torch.zeros(len(tokens)).bool(), {}, {})  # type: ignore[arg-type]
        batch, _ = make_train_batch(scored, tokens, estimates, PPO)
        accumulate_gradients(
            trainee, batch, PPO, temperature=TEMPERATURE, update_policy=True, precision=nullcontext()
        )  # fmt: skip
        del estimates, scored, batch
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert held[1] == held[2]
