import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rl_client.errors import ConfigError, ModelFilesError
from rl_client.training.lora import ADAPTER_FOLDER
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import PolicyModel, load_policy
from rl_client.training.settings_models import LoraSettings
from tests.rl_client.tiny_models import CAUSAL, SEQ2SEQ, make_batch, make_policy, make_tokenizer, stir

SETTINGS = LoraSettings(rank=2, alpha=4)


@pytest.fixture(params=[*SEQ2SEQ, *CAUSAL])
def policy(request) -> PolicyModel:
    return make_policy(request.param)


@pytest.fixture
def tokens():
    return make_batch()


@torch.no_grad()  # torch picks kernels by whether a gradient is wanted
def test_a_new_adapter_changes_nothing_and_learns_alone(policy, tokens):
    names = {name for name, _ in policy.named_parameters()}
    before = policy.requires_grad_(False)(tokens)
    policy.add_adapter(SETTINGS, seed=0)
    assert torch.equal(policy(tokens), before)
    learning = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert len(policy.state_dict().keys() - learning) >= len(names)  # every weight is still there


def test_the_vocabulary_head_has_no_adapter(policy):
    policy.add_adapter(SETTINGS, seed=0)
    assert isinstance(policy.network.get_output_embeddings(), torch.nn.Linear)
    assert not hasattr(policy.network.get_output_embeddings(), "lora_A")


@torch.no_grad()  # torch picks kernels by whether a gradient is wanted
def test_switched_off_is_the_base_and_on_again_is_the_adapter(policy, tokens):
    base = policy.requires_grad_(False)(tokens)
    policy.add_adapter(SETTINGS, seed=0)
    stir(policy)
    on = policy(tokens)
    assert not torch.allclose(on, base, atol=1e-3)
    with policy.adapter.switched_off():
        assert torch.equal(policy(tokens), base)
    assert torch.equal(policy(tokens), on)
    assert any(parameter.requires_grad for parameter in policy.parameters())


def test_the_product_of_both_matrices_is_added_to_the_weight():
    """The definition of low-rank adaptation, by hand on one layer: W x + alpha / r * B A x."""
    policy = make_policy("llama")
    policy.add_adapter(LoraSettings(rank=2, alpha=6, target_modules=("q_proj",)), seed=0)
    stir(policy)
    layer = policy.network.model.layers[0].self_attn.q_proj
    x = torch.randn(5, 16)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (2, 16)
    torch.testing.assert_close(layer(x), x @ layer.base_layer.weight.T + 3.0 * x @ a.T @ b.T)


@torch.no_grad()  # torch picks kernels by whether a gradient is wanted
def test_the_saved_policy_is_plain_and_merged_with_the_adapter_beside_it(policy, tokens, tmp_path):
    peft = pytest.importorskip("peft")
    base = policy.network.name_or_path
    seq2seq = policy.network.config.is_encoder_decoder
    bare = tmp_path / "bare"
    policy.save(bare, make_tokenizer("t5"))
    policy.add_adapter(SETTINGS, seed=0)
    stir(policy)
    expected = policy(tokens)
    policy.save(tmp_path / "out", make_tokenizer("t5"))
    torch.testing.assert_close(load_policy(tmp_path / "out")(tokens), expected, atol=1e-4, rtol=1e-4)
    assert load_tokenizer(tmp_path / "out")
    assert torch.equal(policy(tokens), expected)  # merging touched a copy
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    again = peft.PeftModel.from_pretrained(auto.from_pretrained(bare), tmp_path / "out" / ADAPTER_FOLDER)
    again = PolicyModel(again.get_base_model().eval())
    torch.testing.assert_close(again(tokens), expected, atol=1e-4, rtol=1e-4)
    assert base == policy.network.name_or_path


def test_the_first_matrices_follow_the_seed_and_leave_torch_alone():
    state = torch.get_rng_state()
    policies = [make_policy("gpt2") for _ in range(3)]
    for policy, seed in zip(policies, (1, 1, 2), strict=True):
        policy.add_adapter(SETTINGS, seed)
    assert torch.equal(torch.get_rng_state(), state)
    name = "network.transformer.h.0.attn.c_attn.lora_A.default.weight"
    a, b, c = (policy.state_dict()[name] for policy in policies)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_name_that_no_layer_has_is_refused():
    with pytest.raises(ModelFilesError, match="k_projj"):
        make_policy("llama").add_adapter(LoraSettings(target_modules=("k_projj",)), seed=0)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match="extra `lora`"):
        make_policy("llama").add_adapter(SETTINGS, seed=0)
