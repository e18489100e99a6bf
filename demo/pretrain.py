"""Pretrain the small encoder that all reward models start from, on the world's raw text.

The paper starts from Longformer, which has read much text before it sees any feedback. This encoder reads pages (a
question, passages, a restatement of the facts it asks for) with some words masked and some replaced by others of
their kind, and learns which word was masked (BERT, arXiv:1810.04805) and which words were replaced (ELECTRA,
arXiv:2003.10555). No answer of the policy and no label of the oracle is seen here.
"""

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.progress import Progress
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import ModernBertConfig, ModernBertModel

from demo.vocabulary import save_encoder_tokenizer
from demo.world import ATTRIBUTES, Question, clauses_of, gold_answer, make_question, sentences_of

STEPS = 1600
BATCH_SIZE = 16
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
DECAY_SHARE = 0.5
"""The last share of the steps, in which the learning rate falls to 0."""
HIDDEN_SIZE = 128
PRETRAINED_LAYERS = 2
"""These attend to the whole text and learn to match words. One more layer, left to the feedback, gathers what they
found: it attends to the neighbourhood of each token alone."""
NEIGHBOURHOOD = 32
"""Width of that layer's window, in tokens."""
QUERY_KEY_STD = 0.06
"""Queries and keys start as one random projection, so that equal words attend to each other from the first step
(mimetic initialisation, arXiv:2305.09828)."""
MASK_RATE = 0.15
REPLACE_RATE = 0.25
IGNORE = -100
REPORT_EVERY = 100


@dataclass(frozen=True)
class Page:
    """One corrupted text.

    Attributes:
        ids: Token ids.
        words: The masked or replaced word's id at its position, IGNORE elsewhere.
        replaced: 1 replaced, 0 kept, at words of the answer that could be replaced; IGNORE elsewhere.
    """

    ids: list[int]
    words: list[int]
    replaced: list[int]


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


class Corruptor:
    """Draws pages and corrupts them."""

    def __init__(self, tokenizer: Tokenizer, rng: random.Random) -> None:
        self._tokenizer = tokenizer
        self._rng = rng
        self._mask = _id(tokenizer, "[MASK]")
        self._separator = _id(tokenizer, "[SEP]")
        self._start = _id(tokenizer, "[CLS]")
        groups = [[_id(tokenizer, value.lower()) for value in values] for values in ATTRIBUTES.values()]
        attributes = [_id(tokenizer, attribute) for attribute in ATTRIBUTES]
        self._kin = {word: group for group in [*groups, attributes] for word in group}

    def draw(self) -> Page:
        """Draw a page and corrupt its answer."""
        ids, begin = self._encode(make_question(self._rng))
        words, replaced = [IGNORE] * len(ids), [IGNORE] * len(ids)
        for position in range(begin, len(ids)):
            word = ids[position]
            if word not in self._kin:
                continue
            chance = self._rng.random()
            if chance < MASK_RATE:
                ids[position], words[position] = self._mask, word
            elif chance < MASK_RATE + REPLACE_RATE:
                ids[position] = self._rng.choice([other for other in self._kin[word] if other != word])
                words[position], replaced[position] = word, 1
            else:
                replaced[position] = 0
        return Page(ids, words, replaced)

    def _encode(self, question: Question) -> tuple[list[int], int]:
        answer = gold_answer(question, self._rng)
        segments = clauses_of(answer) if self._rng.random() < 0.5 else sentences_of(answer)
        prefix = f"question: {question.text} context: {question.context} answer:"
        head, *rest = self._tokenizer.encode_batch([prefix, *segments], add_special_tokens=False)
        ids = [self._start, *head.ids]
        begin = len(ids)
        for segment in rest:
            ids += [self._separator, *segment.ids]
        return [*ids, self._separator], begin


def make_model(vocabulary_size: int, tokenizer: Tokenizer) -> ModernBertModel:
    """An untrained ModernBERT of about 0.4M parameters."""
    config = ModernBertConfig(
        vocab_size=vocabulary_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=HIDDEN_SIZE,
        num_hidden_layers=PRETRAINED_LAYERS + 1,
        layer_types=["full_attention"] * PRETRAINED_LAYERS + ["sliding_attention"],
        local_attention=NEIGHBOURHOOD,
        num_attention_heads=4,
        max_position_embeddings=512,
        classifier_pooling="mean",
        pad_token_id=_id(tokenizer, "[PAD]"),
        cls_token_id=_id(tokenizer, "[CLS]"),
        bos_token_id=_id(tokenizer, "[CLS]"),
        sep_token_id=_id(tokenizer, "[SEP]"),
        eos_token_id=_id(tokenizer, "[SEP]"),
    )
    model = ModernBertModel(config)
    with torch.no_grad():
        for layer in model.layers[:PRETRAINED_LAYERS]:
            shared = torch.randn(HIDDEN_SIZE, HIDDEN_SIZE) * QUERY_KEY_STD
            layer.attn.Wqkv.weight[:HIDDEN_SIZE] = shared
            layer.attn.Wqkv.weight[HIDDEN_SIZE : 2 * HIDDEN_SIZE] = shared
    return model


class Pretraining(torch.nn.Module):
    """The lower layers of an encoder with a head for masked words and one for replaced words."""

    def __init__(self, encoder: ModernBertModel, vocabulary_size: int) -> None:
        super().__init__()
        self.encoder = copy.copy(encoder)
        # A view of the same layers: what is learned here is learned by the whole encoder.
        self.encoder._modules = {**encoder._modules, "layers": encoder.layers[:PRETRAINED_LAYERS]}
        self.guess_word = torch.nn.Sequential(
            torch.nn.LayerNorm(HIDDEN_SIZE), torch.nn.Linear(HIDDEN_SIZE, vocabulary_size)
        )
        self.spot_replaced = torch.nn.Sequential(torch.nn.LayerNorm(HIDDEN_SIZE), torch.nn.Linear(HIDDEN_SIZE, 2))

    def forward(self, pages: list[Page], pad_id: int) -> torch.Tensor:
        """The mean loss of a batch of pages: masked and replaced words named, replaced words spotted."""
        ids = _pad([page.ids for page in pages], pad_id)
        words = _pad([page.words for page in pages], IGNORE)
        replaced = _pad([page.replaced for page in pages], IGNORE)
        hidden = self.encoder(input_ids=ids, attention_mask=(ids != pad_id).long()).last_hidden_state
        missing, known = words != IGNORE, replaced != IGNORE
        named = functional.cross_entropy(self.guess_word(hidden[missing]), words[missing])
        spotted = functional.cross_entropy(self.spot_replaced(hidden[known]), replaced[known])
        return named + spotted


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def main(
    directory: Annotated[Path, typer.Argument(help="Where the encoder and its tokenizer are written.")],
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    """Write a pretrained encoder: config.json, model.safetensors, tokenizer.json."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    size = save_encoder_tokenizer(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    corruptor = Corruptor(tokenizer, random.Random(f"{seed}/pretrain"))
    encoder = make_model(size, tokenizer)
    model = Pretraining(encoder, size)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS, (STEPS - step) / (DECAY_SHARE * STEPS))
    )
    with Progress() as progress:
        task = progress.add_task("pretrain", total=STEPS)
        for step in range(1, STEPS + 1):
            pages = [corruptor.draw() for _ in range(BATCH_SIZE)]
            loss = model(pages, _id(tokenizer, "[PAD]"))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(task)
            if step % REPORT_EVERY == 0:
                progress.console.print(f"pretrain {step}/{STEPS}  loss {loss.item():.3f}")
    encoder.save_pretrained(directory)


if __name__ == "__main__":
    typer.run(main)
