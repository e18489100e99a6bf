"""The guide's commands run as they stand, in order, in one folder."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

from reward_proto import Granularity, ModelKind
from rl_client import cli
from rl_client.api.testing import FakeModel, FakeRewardService

PAGE = Path(__file__).parents[2] / "docs" / "offline-evaluation.md"
COMMAND = re.compile(r"```console\n(.*?)```(?:\n\n[^\n`]+:\n\n```text\n(.*?)```)?", re.DOTALL)
ROWS = 200


WORDS = ("It", "is", "an", "album.", "Bloom", "sold", "well;")


def write_jsonl(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def save_policy(path: Path, seed: int) -> None:
    """A tiny T5 with random weights."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=3 + len(WORDS), d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=1, num_decoder_layers=1,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(path)
    make_tokenizer().save_pretrained(path)


def save_language_model(path: Path) -> None:
    """A tiny GPT-2 with random weights."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=3 + len(WORDS), n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(path)
    make_tokenizer().save_pretrained(path)


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the guide's reader is."""
    responses = [" ".join(WORDS[(n * 3 + k * k) % len(WORDS)] for k in range(1 + n % 9)) for n in range(ROWS)]
    answers = [{"id": f"q{n}", "prompt": f"p{n}", "response": response} for n, response in enumerate(responses)]
    write_jsonl(tmp_path / "answers.jsonl", answers)
    write_jsonl(tmp_path / "ppo-answers.jsonl", [one | {"response": "It sold well"} for one in answers[:-5]])
    write_jsonl(tmp_path / "samples.jsonl", [{"id": f"q{n % 4}", "response": responses[n]} for n in range(40)])
    write_jsonl(tmp_path / "prompts.jsonl", [{"id": f"q{n}", "prompt": " ".join(WORDS[: 1 + n])} for n in range(6)])
    write_jsonl(tmp_path / "references.jsonl", [{"id": f"q{n}", "reference": "Bloom is an album."} for n in range(6)])
    for seed, name in enumerate(("sft", "ppo")):
        save_policy(tmp_path / "runs" / name / "policy", seed)
    metrics = [{"step": n, "kl": 0.1 * n, "reward/relevance": 0.5} for n in range(1, 9)]
    write_jsonl(tmp_path / "runs" / "ppo" / "metrics.jsonl", metrics)
    save_language_model(tmp_path / "models" / "gpt2")
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "evaluate-sft.yaml").write_text(settings)
    (tmp_path / "evaluate-ppo.yaml").write_text(settings.replace("sft", "ppo"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeRewardService:
    """Answers whatever goes to the network."""
    served = [
        FakeModel(
            name,
            score=lambda text, word=word: 1.0 if word in text else 0.25,
            granularity=Granularity.SENTENCE,
            kind=ModelKind.TOKEN_CLASSIFICATION,
        )
        for name, word in (("relevance", "album"), ("factuality", "Bloom"), ("toxicity", "well"))
    ]
    fake = FakeRewardService(served)
    monkeypatch.setattr(
        httpx.HTTPTransport, "handle_request", lambda _, request: fake.transport.handle_request(request)
    )
    return fake


def test_every_command_does_what_the_page_says(
    folder: Path, service: FakeRewardService, run_examples: Callable[[str], None]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = COMMAND.findall(text)
    assert len(found) == text.count("```console")
    for commands, told in found:
        for line in commands.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "rl-client"
            done = CliRunner().invoke(cli.app, arguments)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            assert told in done.stdout
    run_examples(PAGE.name)
    comparison = json.loads((folder / "runs" / "comparison" / "comparison.json").read_text())
    assert {"reward/relevance", "rouge_lsum", "length_tokens"} <= set(comparison["pairs"][0]["figures"])
    assert comparison["runs"]["ppo"]["relevance"]["last"]["kl"] == pytest.approx(0.8)
    toxicity = json.loads((folder / "runs" / "toxicity" / "figures.json").read_text())
    assert {"average_max/toxicity", "perplexity", "dist_2"} <= set(toxicity["figures"])
