"""What steers Hugging Face's `generate`: chance from a generator of our own, and a look at every token as it comes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
)

from rl_client.training.config import GenerationSettings

Watch = Callable[[Tensor], None]
"""Told the [B, t] ids sampled so far after each token, prompt and start token left out. An error of its ends all."""


class DrawByNoise(LogitsProcessor):  # type: ignore[misc]
    """Turns the choice of the likeliest token into a draw: the largest of logits plus Gumbel noise is a sample.

    In place of `do_sample`, which draws from torch's global generator: sampling in one thread would then change what
    another one draws, and the other way round.

    Source: the Gumbel-max trick, arXiv:1411.0030.
    """

    def __init__(self, seed: int, device: torch.device, rows: tuple[int, int] | None = None, *, top_k: int = 0) -> None:
        """Seed the draws.

        Args:
            seed: The same seed gives the same draws.
            device: Of the logits.
            rows: The number of the first row, and how many rows the whole batch has, of which other processes have the
                rest: each process then draws for all, so that each row's draw is that of the whole batch. None where
                the rows are all.
            top_k: Draw among so many of the likeliest tokens, the others excluded; 0 for all tokens. Noise is made for
                those few alone: on a CPU that of a whole vocabulary takes as long as its logits.
        """
        self._generator = torch.Generator(device).manual_seed(seed)
        self._rows = rows
        self._top_k = top_k

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] logits, -inf where a token is excluded, with noise."""
        if not self._top_k:
            return self._with_noise(scores)
        likeliest, ids = scores.topk(min(self._top_k, scores.shape[1]), dim=1)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids, self._with_noise(likeliest))

    def _with_noise(self, scores: Tensor) -> Tensor:
        first, total = self._rows or (0, len(scores))
        noise = scores.new_empty(total, scores.shape[1]).exponential_(generator=self._generator)
        noise = noise[first : first + len(scores)]
        return scores - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()


class EachToken(StoppingCriteria):  # type: ignore[misc]
    """Tells of every sampled token, and never stops."""

    def __init__(self, watch: Watch, skipped_tokens: int) -> None:
        """Prepare to tell.

        Args:
            watch: Who is told.
            skipped_tokens: How many leading tokens were not sampled.
        """
        self._watch = watch
        self._skipped_tokens = skipped_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor, **options: object) -> Tensor:
        """[B] bool, all False."""
        self._watch(input_ids[:, self._skipped_tokens :])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@dataclass(frozen=True, slots=True)
class Steering:
    """How one call samples, beside Hugging Face's own `GenerationConfig`.

    Attributes:
        samples: Responses to each prompt.
        processors: What changes the logits before the likeliest token is taken.
        watch: Who is told of each token.
        written: [P, t] int64 ids with which the responses to each prompt begin, for sampling what comes after.
    """

    samples: int = 1
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    watch: Watch | None = None
    written: Tensor | None = None

    def stopping_criteria(self, skipped_tokens: int) -> StoppingCriteriaList:
        """What `generate` is given to tell of each token; see `EachToken`."""
        return StoppingCriteriaList([EachToken(self.watch, skipped_tokens)] if self.watch else [])


def logits_processors(
    settings: GenerationSettings, seed: int, device: torch.device, rows: tuple[int, int] | None = None
) -> LogitsProcessorList:
    """What makes greedy decoding draw as the settings say; nothing if they say greedy. `rows`: see `DrawByNoise`."""
    found = LogitsProcessorList()
    if settings.greedy:
        return found
    if settings.temperature != 1.0:
        found.append(TemperatureLogitsWarper(settings.temperature))
    found.append(DrawByNoise(seed, device, rows, top_k=settings.top_k))
    return found
