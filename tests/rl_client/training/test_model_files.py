import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from rl_client.errors import ModelFilesError
from rl_client.training.model_files import check_same_tokens, init_network, load_network, load_tokenizer
from tests.rl_client.tiny_models import CAUSAL, SEQ2SEQ, make_config


@pytest.mark.parametrize("family", [*SEQ2SEQ, *CAUSAL])
def test_every_family_loads_as_it_was_saved(family, tmp_path):
    auto = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    saved = auto.from_config(make_config(family))
    saved.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    assert type(loaded) is type(saved)
    assert not loaded.training
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_directory_that_lacks_a_weight_is_refused(policy_dir, tmp_path):
    shutil.copytree(policy_dir, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["decoder.final_layer_norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFilesError, match=r"decoder\.final_layer_norm\.weight"):
        load_network(tmp_path)


def test_pickled_weights_are_refused(policy_dir, tmp_path):
    shutil.copytree(policy_dir, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFilesError):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "clip"}, "CLIPConfig"),
        ({"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}, "looks ahead"),
        ({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}, "custom code"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id"),
    ],
)
def test_other_models_are_refused(init_dir, tmp_path, change, message):
    config = json.loads((init_dir / "config.json").read_text())
    del config["is_encoder_decoder"]
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelFilesError, match=message):
        init_network(tmp_path, 0)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ModelFilesError, match="nowhere"):
        load_network(tmp_path / "nowhere")


def test_a_tokenizer_without_eos_is_refused(tmp_path, tokenizer):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>").save_pretrained(tmp_path)
    with pytest.raises(ModelFilesError, match="eos"):
        load_tokenizer(tmp_path)


def test_a_value_model_that_reads_ids_otherwise_is_refused(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "same")
    check_same_tokens(tmp_path / "policy", tmp_path / "same")
    text = (tmp_path / "same" / "tokenizer.json").read_text()
    (tmp_path / "same" / "tokenizer.json").write_text(text.replace("▁good", "▁other"))
    with pytest.raises(ModelFilesError, match="tokenizer is not the policy's"):
        check_same_tokens(tmp_path / "policy", tmp_path / "same")
