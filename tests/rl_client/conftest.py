"""Tiny models and data, made once a session, for rollout, training, recipes and evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rl_client.tiny_models import LORA, WORDS, make_config, make_policy, make_tokenizer


@pytest.fixture(scope="session")
def family() -> str:
    """Which of `tiny_models.CONFIGS` the fixtures build; some folders run over several."""
    return "t5"


@pytest.fixture(scope="session")
def tokenizer(family):
    """Word-level, one space before each word; for an encoder, eos after what it reads."""
    return make_tokenizer(family)


@pytest.fixture(scope="session")
def model_config(family):
    """Two layers, dropout on."""
    return make_config(family)


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


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory) -> Path:
    """A decoder's directory with random weights."""
    folder = tmp_path_factory.mktemp("llama")
    make_policy("llama").save(folder, make_tokenizer("llama"))
    return folder


@pytest.fixture
def network_settings(family) -> dict:
    """What a run's settings say of the policy, beside its directory."""
    return {"lora": {"rank": 4, "alpha": 8}} if family.endswith(LORA) else {}


@pytest.fixture
def policy(policy_dir, network_settings):
    """The random policy, loaded afresh."""
    from rl_client.training.models import load_policy
    from rl_client.training.settings_models import NetworkSettings

    model = load_policy(policy_dir)
    if (lora := NetworkSettings(**network_settings).lora) is not None:
        model.add_adapter(lora, seed=0)
    return model


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
