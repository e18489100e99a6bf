"""Prompts from a JSONL file, and which of them each step takes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rl_client.errors import DataError
from rl_client.rollout.joining import Share
from rl_client.rollout.prompt_format import cut_prompt_ids, encode_prompts
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Prompt
from rl_client.training.config import EvaluateConfig, TrainConfig
from rl_client.training.settings_models import PromptFormatSettings

PLAIN = PromptFormatSettings()


class PromptRecord(BaseModel):
    """One line of a prompts file."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(min_length=1)]
    prompt: str
    fields: dict[str, str] = Field(default_factory=dict)


Record = TypeVar("Record", bound=PromptRecord)


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read a JSONL file.

    Args:
        path: One JSON object a line; blank lines are skipped.
        kind: The record's model.

    Returns:
        The records, in order.

    Raises:
        DataError: For the first line that is not such a record, an id that occurs twice, or an empty file.
    """
    records: dict[str, Record] = {}
    for number, line in _lines(path):
        try:
            record = kind.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise DataError(f"{path}, line {number}: {where + ': ' if where else ''}{fault['msg']}") from error
        if record.id in records:
            raise DataError(f"{path}, line {number}: the id {json.dumps(record.id)} occurs twice")
        records[record.id] = record
    if not records:
        raise DataError(f"{path} holds no records")
    return list(records.values())


def load_prompts(config: TrainConfig | EvaluateConfig, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """The prompts that the settings name, tokenized.

    Raises:
        DataError: See `read_records` and `tokenize_prompts`.
    """
    records = read_records(config.prompts, PromptRecord)
    return tokenize_prompts(
        records, tokenizer, max_prompt_tokens=config.max_prompt_tokens, cut_prompt=config.cut_prompt, text_format=config
    )


def tokenize_prompts(
    records: Sequence[PromptRecord],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_tokens: int,
    cut_prompt: bool,
    text_format: PromptFormatSettings = PLAIN,
) -> list[Prompt]:
    """Tokenize prompts once.

    Args:
        records: The prompts.
        tokenizer: The policy's.
        max_prompt_tokens: The limit, special tokens included.
        cut_prompt: Whether a longer prompt is cut at its end (special tokens stay); it is an error otherwise.
        text_format: Plain, or in the tokenizer's chat template.

    Returns:
        The prompts in order, each with the number of tokens it lost.

    Raises:
        DataError: For a prompt over the limit that may not be cut, or one without any token.
        ModelFilesError: For a chat template that the tokenizer lacks.
    """
    rows = encode_prompts([record.prompt for record in records], tokenizer, text_format)
    prompts = []
    for record, ids in zip(records, rows, strict=True):
        cut_tokens = max(0, len(ids) - max_prompt_tokens)
        if not ids:
            raise DataError(f"prompt {record.id} has no tokens")
        if cut_tokens and not cut_prompt:
            raise DataError(
                f"prompt {record.id} has {len(ids)} tokens, over max_prompt_tokens {max_prompt_tokens}; "
                "raise the limit, or allow the cut with cut_prompt: true"
            )
        if cut_tokens:
            ids = cut_prompt_ids(record.prompt, tokenizer, text_format, max_tokens=max_prompt_tokens)
        prompts.append(Prompt(record.id, record.prompt, record.fields, tuple(ids), cut_tokens))
    return prompts


def pad_prompts(prompts: Sequence[Prompt], pad_id: int) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor.

    Args:
        prompts: P prompts.
        pad_id: What stands right of the shorter ones.

    Returns:
        prompt_ids: [P, L] int64.
        prompt_mask: [P, L] bool, True = a real token.
    """
    return pad_rows([prompt.input_ids for prompt in prompts], pad_id)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of token ids as one tensor.

    Args:
        rows: B rows of different lengths.
        pad_id: What stands right of the shorter ones.

    Returns:
        ids: [B, T] int64.
        mask: [B, T] bool, True = a real token.
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width)[None, :] < lengths[:, None]


class PromptSampler:
    """Draws prompts without replacement, epoch after epoch, each in a fresh seeded order.

    What a step takes depends on the seed and the step alone, so a resumed run sees what an unbroken one would.

    Attributes:
        share: The part of each step's prompts that is this process's.
    """

    def __init__(
        self, prompts: Sequence[Prompt], *, prompts_per_step: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self._prompts = prompts
        self._prompts_per_step = prompts_per_step
        self._seed = seed
        self.share = Share.of(prompts_per_step, rank, processes)

    def take(self, step: int) -> tuple[Prompt, ...]:
        """This process's prompts of a step.

        Args:
            step: Counted from 1.

        Returns:
            Its share of `prompts_per_step` prompts; where an epoch ends inside the step, the next one's follow.
        """
        first = (step - 1) * self._prompts_per_step
        taken: list[Prompt] = []
        while len(taken) < self._prompts_per_step:
            epoch, start = divmod(first + len(taken), len(self._prompts))
            order = epoch_order(len(self._prompts), self._seed, epoch)
            wanted = self._prompts_per_step - len(taken)
            taken.extend(self._prompts[i] for i in order[start : start + wanted])
        return tuple(taken[self.share.first : self.share.first + self.share.count])


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of [0, n) that depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order: list[int] = torch.randperm(n, generator=generator).tolist()
    return order


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line
