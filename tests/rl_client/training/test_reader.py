"""Every family against transformers' own forward of each pair of prompt and response on its own."""

from functools import partial

import pytest
import torch
from transformers import GenerationConfig

from rl_client.errors import ModelFilesError
from rl_client.training.causal_reader import CausalReader
from rl_client.training.reader import check_seam, make_reader, read_logits, recompute_activations
from rl_client.training.seq2seq_reader import Seq2SeqReader
from tests.rl_client.tiny_models import CAUSAL, EOS, PAD, SEQ2SEQ, make_batch, make_policy

PAIRS = (((4, 5, 6, 1), (3, 4, 1)), ((7, 1), (5, 1)), ((4, 5, 6, 1), (1,)))


@pytest.fixture(params=[*SEQ2SEQ, *CAUSAL])
def policy(request):
    return make_policy(request.param)


@pytest.fixture
def tokens():
    """`PAIRS` in one batch."""
    return make_batch()


def plain_logits(network, prompt, response):
    """[T, V]: what transformers says of each response token when it reads this pair alone."""
    if network.config.is_encoder_decoder:
        return network(input_ids=torch.tensor([prompt]), labels=torch.tensor([response])).logits[0]
    ids = torch.tensor([[*prompt, *response]])
    return network(input_ids=ids).logits[0, len(prompt) - 1 : -1]


def test_logits_are_those_of_each_pair_on_its_own(policy, tokens):
    logits = policy(tokens)
    for row, (prompt, response) in enumerate(PAIRS):
        expected = plain_logits(policy.network, prompt, response)
        torch.testing.assert_close(logits[row, : len(response)], expected, atol=1e-5, rtol=1e-5)


def gradients(policy, loss):
    names, parameters = zip(*policy.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


def test_gradients_are_those_of_each_pair_on_its_own(policy, tokens):
    """The shared prompt's gradient sums over its responses."""
    found = gradients(policy, policy(tokens)[tokens.response_mask].square().sum())
    alone = sum(plain_logits(policy.network, *pair).square().sum() for pair in PAIRS)
    expected = gradients(policy, alone)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-3, rtol=1e-4)


def test_recomputed_activations_change_no_gradient(policy, tokens):
    def loss():
        return policy(tokens)[tokens.response_mask].square().sum()

    expected = gradients(policy, loss())
    recompute_activations(policy.network, policy.reader)
    calls = []
    layer = policy.network.get_decoder()
    layers = next(module for module in layer.modules() if isinstance(module, torch.nn.ModuleList))
    layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    recomputed = []
    first = next(module for module in layers[0].modules() if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm))
    first.register_forward_pre_hook(lambda *_: recomputed.append(1))
    found = gradients(policy, loss())
    assert len(recomputed) == 2 * len(calls)  # once in each direction
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-4)


def test_samples_are_what_greedy_search_of_each_prompt_alone_finds(policy):
    config = GenerationConfig(do_sample=False, max_new_tokens=5, eos_token_id=EOS, pad_token_id=PAD)
    prompts = ((4, 5, 6, 1), (7, 1), (3, 3, 3, 9, 9, 1))
    ids = torch.tensor([[*prompt, *[PAD] * (6 - len(prompt))] for prompt in prompts])
    mask = torch.tensor([[True] * len(prompt) + [False] * (6 - len(prompt)) for prompt in prompts])
    found = policy.sample(ids, mask, config)
    for row, prompt in enumerate(prompts):
        response: list[int] = []
        while len(response) < 5 and response[-1:] != [EOS]:
            # any id: the last one of a response is never read
            response.append(int(plain_logits(policy.network, prompt, (*response, PAD))[-1].argmax()))
        assert found[row, : len(response)].tolist() == response


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_compiled_networks_read_the_same_of_any_lengths(family, monkeypatch):
    """Traced for any lengths and with gradients; the C++ that torch's default backend would generate takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    policy = make_policy(family)
    batches = [make_batch(), make_batch().select(torch.tensor([1])), make_batch().select(torch.tensor([0, 2]))]
    expected = [policy(tokens) for tokens in batches]
    wanted = gradients(policy, expected[0].square().sum())
    policy.reader.compile()
    found = [policy(tokens) for tokens in batches]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients(policy, found[0].square().sum()).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-3, rtol=1e-3)


def test_the_family_decides():
    assert isinstance(make_reader(make_policy("bart").network), Seq2SeqReader)
    assert isinstance(make_reader(make_policy("gpt2").network), CausalReader)


def test_every_family_passes_its_own_check(policy):
    check_seam(policy.network, "here")


def test_a_head_of_another_kind_is_refused():
    network = make_policy("llama").network
    plain = network.forward
    network.forward = lambda *args, **kwargs: _doubled(plain(*args, **kwargs))
    with pytest.raises(ModelFilesError, match="LlamaForCausalLM"):
        check_seam(network, "here")


def test_a_capped_head_is_read_as_it_is():
    from transformers import AutoModelForCausalLM, Gemma2Config

    config = Gemma2Config(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
        final_logit_softcapping=2.0,
    )
    network = AutoModelForCausalLM.from_config(config).eval()
    check_seam(network, "here")
    assert read_logits(network, torch.randn(3, 16) * 100).abs().max() <= 2.0


def _doubled(output):
    output.logits = output.logits * 2
    return output
