"""Tiny models and data, made once a session, for rollout, training, recipes and evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = ("good", "bad", "plain", "red", "blue", "one", "two", ".", ",")
PAD, EOS, UNK = 0, 1, 2


@pytest.fixture(scope="session")
def tokenizer():
    """Word-level, one space before each word, eos after what the encoder reads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


@pytest.fixture(scope="session")
def model_config():
    """One encoder and two decoder layers: transformers confuses the two depths in places."""
    from transformers import T5Config

    return T5Config(
        vocab_size=3 + len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_heads=2,
        num_layers=1,
        num_decoder_layers=2,
        dropout_rate=0.1,
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )


@pytest.fixture(scope="session")
def init_dir(tmp_path_factory, tokenizer, model_config) -> Path:
    """A model directory without weights."""
    folder = tmp_path_factory.mktemp("init")
    model_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory, init_dir, tokenizer) -> Path:
    """A model directory with random weights."""
    from rl_client.training.models import init_policy

    folder = tmp_path_factory.mktemp("policy")
    init_policy(init_dir, seed=0).save(folder, tokenizer)
    return folder


@pytest.fixture
def policy(policy_dir):
    """The random policy, loaded afresh."""
    from rl_client.training.models import load_policy

    return load_policy(policy_dir)


@pytest.fixture
def value(policy_dir):
    """A value model with a random head, so that its values differ."""
    import torch

    from rl_client.training.models import load_value

    model = load_value(policy_dir)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture
def prompts(tokenizer):
    """Four prompts of different lengths."""
    from rl_client.rollout.prompts import PromptRecord, tokenize_prompts

    texts = ("red good .", "blue", "one two one two bad", "plain , red , blue .")
    records = [PromptRecord(id=f"p{i}", prompt=text, fields={"question": text}) for i, text in enumerate(texts)]
    return tokenize_prompts(records, tokenizer, max_prompt_tokens=16, cut_prompt=False)


@pytest.fixture
def write_jsonl(tmp_path) -> Callable[[str, list[dict]], Path]:
    """Writes records into a file of the test's folder."""

    def write(name: str, records: list[dict]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return write


@pytest.fixture
def prompts_file(write_jsonl) -> Path:
    """Ten prompts."""
    texts = [f"{a} {b} {c}" for a in ("red", "blue") for b in ("one", "two", "plain , one") for c in (".", "good")][:10]
    return write_jsonl(
        "prompts.jsonl", [{"id": f"q{i}", "prompt": text, "fields": {"question": text}} for i, text in enumerate(texts)]
    )


@pytest.fixture
def demonstrations_file(write_jsonl) -> Path:
    """Forty demonstrations: the response repeats the prompt's first words."""
    records = []
    for i in range(40):
        words = [WORDS[(i * 3 + j) % len(WORDS)] for j in range(3 + i % 3)]
        records.append({"id": f"d{i}", "prompt": " ".join(words), "response": " ".join(words[: 1 + i % 3])})
    return write_jsonl("demonstrations.jsonl", records)
