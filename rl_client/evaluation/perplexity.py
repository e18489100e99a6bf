"""How likely a language model finds each response, given its prompt."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rl_client.errors import DataError, DecodeError, ModelFilesError
from rl_client.offline.systems import System

BATCH_SIZE = 8
MAX_NATS = 700.0
"""A perplexity beyond e to this does not fit a float."""


@dataclass(frozen=True, slots=True)
class Perplexities:
    """What a language model says of a system.

    Attributes:
        values: By prompt id the perplexity of each response; None for one without a token.
        corpus: Of all responses as one text; None without a token.
        cut_prompts: Prompts whose beginning was cut to fit the model.
    """

    values: Mapping[str, Sequence[float | None]]
    corpus: float | None
    cut_prompts: int


class LanguageModel:
    """A causal language model of a Hugging Face directory, in fp32.

    Args:
        folder: The directory; no name of the hub.
        device: Where it computes.

    Raises:
        ModelFilesError: If it holds no causal language model.
        DecodeError: If its tokenizer gives no offsets.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        if not folder.is_dir():
            raise ModelFilesError(f"{folder} is not a model directory")
        try:
            self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise ModelFilesError(f"{folder} holds no causal language model: {error}") from error
        if not self._tokenizer.is_fast:
            raise DecodeError(f"{folder}: the tokenizer gives no offsets")
        self._model: PreTrainedModel = model.to(device).eval()
        self._device = device
        self._limit: int | None = getattr(model.config, "max_position_embeddings", None)

    def read(self, system: System) -> Perplexities:
        """The perplexity of every response of a system.

        Raises:
            DataError: If a response alone is longer than the model reads.
        """
        pairs = [
            (prompt.id, prompt.prompt, response.text)
            for prompt in system.prompts.values()
            for response in prompt.responses
        ]
        rows = [self._encode(*pair) for pair in pairs]
        values: dict[str, list[float | None]] = {key: [] for key in system.prompts}
        total_nats, tokens = 0.0, 0
        console = Console(stderr=True)
        starts = range(0, len(rows), BATCH_SIZE)
        shown = track(starts, f"perplexity of {system.name}", console=console, disable=not console.is_terminal)
        for start in shown:
            nats = self._nats(rows[start : start + BATCH_SIZE])
            for (key, _, _), row, found in zip(pairs[start:], rows[start:], nats, strict=False):
                values[key].append(math.exp(min(found / row.scored, MAX_NATS)) if row.scored else None)
                total_nats += found
                tokens += row.scored
        corpus = math.exp(min(total_nats / tokens, MAX_NATS)) if tokens else None
        return Perplexities(values, corpus, sum(row.cut for row in rows))

    def _encode(self, key: str, prompt: str, response: str) -> "_Row":
        """Token ids of prompt and response, read as one text; a space between them where there is none."""
        if prompt and response and not prompt[-1].isspace() and not response[0].isspace():
            prompt += " "
        encoded = self._tokenizer(
            prompt + response, return_offsets_mapping=True, add_special_tokens=False, verbose=False
        )
        ids: list[int] = encoded["input_ids"]
        scored = sum(end > len(prompt) and end > start for start, end in encoded["offset_mapping"])
        if scored == len(ids):
            # Without anything before it the first token has no probability.
            begin = self._tokenizer.bos_token_id
            begin = self._tokenizer.eos_token_id if begin is None else begin
            if begin is None:
                scored = max(0, scored - 1)
            else:
                ids = [begin, *ids]
        if self._limit is not None and scored >= self._limit:
            raise DataError(f"a response to {key!r} has {scored} tokens; the language model reads {self._limit}")
        kept = ids if self._limit is None else ids[-self._limit :]
        return _Row(kept, scored, len(kept) < len(ids))

    @torch.inference_mode()
    def _nats(self, rows: Sequence["_Row"]) -> Iterator[float]:
        """Negative log-probability of each row's last `scored` tokens."""
        width = max((len(row.ids) for row in rows), default=0)
        if not width:
            return iter([0.0] * len(rows))
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=self._device)
        lengths = torch.tensor([len(row.ids) for row in rows], device=self._device)
        positions = torch.arange(width, device=self._device)
        real = positions < lengths[:, None]
        logits: Tensor = self._model(input_ids=ids, attention_mask=real.long()).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        scored = torch.tensor([row.scored for row in rows], device=self._device)
        # Position p of `losses` is the loss of token p + 1.
        counts = real[:, 1:] & (positions[1:] >= (lengths - scored)[:, None])
        return iter((losses.double() * counts).sum(dim=1).tolist())


@dataclass(frozen=True, slots=True)
class _Row:
    """Token ids, how many at the end are the response's, and whether some at the beginning were cut off."""

    ids: list[int]
    scored: int
    cut: bool
