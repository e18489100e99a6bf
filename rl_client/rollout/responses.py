"""Sampled ids -> texts with offsets -> a `Rollout`, or a part of one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rl_client.rollout.decode import Offsets, decode_with_offsets
from rl_client.rollout.prompts import pad_prompts, pad_rows
from rl_client.rollout.stages import Prompt, Rollout, TokenBatch


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response.

    Attributes:
        ids: T sampled tokens, the eos included.
        finished: Whether it ended by eos.
        text: The ids as text.
        offsets: For each token its half-open code points in the text.
    """

    ids: tuple[int, ...]
    finished: bool
    text: str
    offsets: Offsets


class ResponseRows:
    """The responses of a step, gathered in whatever order they end."""

    def __init__(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, samples_per_prompt: int) -> None:
        """Expect responses.

        Args:
            prompts: P of them; row `p * samples_per_prompt + s` is sample s of prompt p.
            tokenizer: The policy's.
            samples_per_prompt: Responses to each.
        """
        self._prompts = tuple(prompts)
        self._tokenizer = tokenizer
        self._samples_per_prompt = samples_per_prompt
        self._responses: dict[int, Response] = {}

    def add(self, rows: Sequence[int], ids: Tensor) -> Rollout:
        """Take in responses that have ended.

        Args:
            rows: Of the step's responses.
            ids: [b, t] int64 on any device, anything after the first eos.

        Returns:
            The part that they are.
        """
        mask, finished = mask_after_eos(ids, self._tokenizer.eos_token_id)
        lengths = mask.sum(dim=1).tolist()
        for row, tokens, length, ended in zip(rows, ids.tolist(), lengths, finished.tolist(), strict=True):
            text, offsets = decode_with_offsets(self._tokenizer, tokens[:length])
            self._responses[row] = Response(tuple(tokens[:length]), ended, text, offsets)
        return self._rollout(rows, part=True)

    def whole(self) -> Rollout:
        """All responses, in order."""
        return self._rollout(range(len(self._prompts) * self._samples_per_prompt), part=False)

    def _rollout(self, rows: Sequence[int], *, part: bool) -> Rollout:
        numbers = [row // self._samples_per_prompt for row in rows]
        held = sorted(set(numbers)) if part else list(range(len(self._prompts)))
        prompts = tuple(self._prompts[number] for number in held)
        responses = [self._responses[row] for row in rows]
        pad_id = self._tokenizer.pad_token_id
        return Rollout(
            prompts=prompts,
            tokens=TokenBatch(
                *pad_prompts(prompts, pad_id),
                torch.tensor([held.index(number) for number in numbers]),
                *pad_rows([response.ids for response in responses], pad_id),
            ),
            finished=tuple(response.finished for response in responses),
            texts=tuple(response.text for response in responses),
            offsets=tuple(response.offsets for response in responses),
            part_of=tuple(rows) if part else None,
        )


def mask_after_eos(ids: Tensor, eos_id: int) -> tuple[Tensor, Tensor]:
    """Which tokens were sampled, found by the first eos and not by the pad, which may be the same token.

    Args:
        ids: [B, T] int64, anything after the first eos.
        eos_id: Ends a response.

    Returns:
        response_mask: [B, T] bool, True up to the first eos, it included.
        finished: [B] bool, whether there is one.
    """
    is_eos = ids == eos_id
    eos_before = is_eos.cumsum(dim=1) - is_eos.long()
    return eos_before == 0, is_eos.any(dim=1)
