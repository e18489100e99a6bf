"""Demonstrations for supervised fine-tuning: read, tokenized once, batched by length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from rl_client.errors import DataError
from rl_client.rollout.prompts import PromptRecord, epoch_order, pad_prompts, pad_rows, read_records, tokenize_prompts
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Prompt, TokenBatch
from rl_client.training.config import SftTrainingSettings

SORTED_BATCHES = 16
"""Demonstrations are sorted by length within this many batches: near enough to random, and little padding."""


class DemonstrationRecord(PromptRecord):
    """One line of a demonstrations file."""

    response: str


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the tokens of its response, the eos included."""

    prompt: Prompt
    response_ids: tuple[int, ...]


def load_demonstrations(
    path: Path, tokenizer: PreTrainedTokenizerBase, settings: SftTrainingSettings
) -> list[Demonstration]:
    """Read and tokenize a file of demonstrations.

    Raises:
        DataError: For a bad line, a prompt over its limit that may not be cut, or a response over its limit.
    """
    records = read_records(path, DemonstrationRecord)
    prompts = tokenize_prompts(
        records,
        tokenizer,
        max_prompt_tokens=settings.max_prompt_tokens,
        cut_prompt=settings.cut_prompt,
        text_format=settings,
    )
    eos_id = tokenizer.eos_token_id
    # text_target: some tokenizers treat what a decoder writes otherwise than what an encoder reads.
    rows = tokenizer(text_target=[record.response for record in records], add_special_tokens=False, verbose=False)
    demonstrations = []
    for prompt, ids in zip(prompts, rows["input_ids"], strict=True):
        if len(ids) + 1 > settings.max_response_tokens:
            raise DataError(
                f"{path}: the response of {prompt.id} has {len(ids) + 1} tokens, over max_response_tokens "
                f"{settings.max_response_tokens}; it is never cut, since a cut one would teach to stop anywhere"
            )
        demonstrations.append(Demonstration(prompt, (*ids, eos_id)))
    return demonstrations


def collate_demonstrations(demonstrations: Sequence[Demonstration], pad_id: int) -> TokenBatch:
    """Demonstrations as one padded batch, each with a prompt row of its own."""
    prompt_ids, prompt_mask = pad_prompts([demonstration.prompt for demonstration in demonstrations], pad_id)
    response_ids, response_mask = pad_rows([demonstration.response_ids for demonstration in demonstrations], pad_id)
    return TokenBatch(prompt_ids, prompt_mask, torch.arange(len(demonstrations)), response_ids, response_mask)


class DemonstrationSampler:
    """Draws batches without replacement, epoch after epoch; which ones depends on the seed and the step alone."""

    def __init__(self, demonstrations: Sequence[Demonstration], *, batch_size: int, seed: int) -> None:
        self._demonstrations = demonstrations
        self._batch_size = min(batch_size, len(demonstrations))
        self._batches_per_epoch = len(demonstrations) // self._batch_size
        self._seed = seed
        self._epoch = -1
        self._batches: list[list[int]] = []

    def take(self, step: int) -> list[Demonstration]:
        """The batch of a step, counted from 1; always full: an epoch's odd rest waits for a later epoch's order."""
        epoch, index = divmod(step - 1, self._batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._epoch_batches(epoch)
        return [self._demonstrations[i] for i in self._batches[index]]

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        size = self._batch_size
        order = epoch_order(len(self._demonstrations), self._seed, epoch)[: self._batches_per_epoch * size]
        batches = []
        for start in range(0, len(order), SORTED_BATCHES * size):
            window = sorted(order[start : start + SORTED_BATCHES * size], key=self._length)
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        return [batches[i] for i in epoch_order(len(batches), derive_seed(self._seed, "batches"), epoch)]

    def _length(self, index: int) -> tuple[int, int]:
        demonstration = self._demonstrations[index]
        return len(demonstration.response_ids), len(demonstration.prompt.input_ids)
