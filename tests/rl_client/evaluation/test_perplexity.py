import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rl_client.errors import DataError, ModelFilesError
from rl_client.evaluation.perplexity import LanguageModel
from rl_client.offline.systems import PromptResponses, Response, System

WORDS = ("<unk>", "<s>", "Ġred", "red", "Ġblue", "blue", "Ġone", "one")
LIMIT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = tmp_path_factory.mktemp("lm")
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>").save_pretrained(made)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=LIMIT, initializer_range=0.5,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def model(folder):
    return LanguageModel(folder, torch.device("cpu"))


def make(*pairs):
    prompts = {
        f"q{n}": PromptResponses(f"q{n}", prompt, {}, tuple(Response(text, {}, None) for text in texts), (), {})
        for n, (prompt, texts) in enumerate(pairs)
    }
    return System("s", prompts, {})


def slow_nats(folder, ids, scored):
    """One token at a time, from the last `scored` tokens' own distributions."""
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    nats = []
    for place in range(len(ids) - scored, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:place]])).logits[0, -1]
        nats.append(-torch.log_softmax(logits.double(), dim=-1)[ids[place]].item())
    return nats


def ids(*words):
    return [WORDS.index(word) for word in words]


def test_responses_are_read_after_their_prompts(folder, model):
    read = model.read(make(("red", ["blue one", "one"]), ("", ["red blue"])))
    first = slow_nats(folder, ids("red", "Ġblue", "Ġone"), 2)
    second = slow_nats(folder, ids("red", "Ġone"), 1)
    alone = slow_nats(folder, ids("<s>", "red", "Ġblue"), 2)
    assert read.values["q0"] == pytest.approx([math.exp(sum(first) / 2), math.exp(second[0])], rel=1e-4)
    assert read.values["q1"] == pytest.approx([math.exp(sum(alone) / 2)], rel=1e-4)
    assert read.corpus == pytest.approx(math.exp(sum([*first, *second, *alone]) / 5), rel=1e-4)
    assert read.cut_prompts == 0


def test_the_batch_changes_no_figure(model):
    pairs = [("red", [" ".join(["blue"] * n)]) for n in range(1, 7)]
    together = model.read(make(*pairs)).values
    for n, pair in enumerate(pairs):
        assert model.read(make(pair)).values["q0"] == pytest.approx(together[f"q{n}"], rel=1e-4)


def test_an_empty_response_has_none(model):
    read = model.read(make(("red", [""])))
    assert (read.values, read.corpus) == ({"q0": [None]}, None)


def test_a_long_prompt_is_cut_at_its_beginning_and_counted(folder, model):
    read = model.read(make(("red " * 9, ["one"])))
    (nats,) = slow_nats(folder, ids(*["Ġred"] * 7, "Ġone"), 1)
    assert read.cut_prompts == 1
    assert read.values["q0"] == pytest.approx([math.exp(nats)], rel=1e-4)


def test_a_response_that_is_too_long_is_an_error(model):
    with pytest.raises(DataError, match="'q0' has 8 tokens; the language model reads 8"):
        model.read(make(("red", ["one " * 7 + "one"])))


def test_what_is_no_language_model_is_refused(tmp_path, policy_dir):
    with pytest.raises(ModelFilesError, match="is not a model directory"):
        LanguageModel(tmp_path / "absent", torch.device("cpu"))
    with pytest.raises(ModelFilesError, match="holds no causal language model"):
        LanguageModel(policy_dir, torch.device("cpu"))
