"""Text of sampled ids, and where in it each token stands.

Offsets come from the sampled ids themselves: tokenizing the decoded text again may divide it differently.
"""

from collections.abc import Sequence
from itertools import pairwise, takewhile

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from rl_client.errors import DecodeError

Offsets = tuple[tuple[int, int], ...]
"""For each token its half-open code points."""


def decode_with_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, Offsets]:
    """Decode sampled ids without their special tokens.

    A special token has no width. Nor has a token whose bytes do not complete a character; the one that completes it
    holds the whole.

    Args:
        tokenizer: The policy's; a fast one.
        ids: T sampled ids, eos included.

    Returns:
        The text, and T half-open ranges of code points that cover it in order without gap or overlap.

    Raises:
        DecodeError: If the tokenizer is not a fast one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise DecodeError(f"{type(tokenizer).__name__} is not a fast tokenizer, so its tokens have no offsets")
    text = backend.decode(ids, skip_special_tokens=True)
    ends = _streamed_ends(backend, ids)
    if ends is None or (ends[-1] if ends else 0) != len(text):
        ends = _compared_ends(backend, ids, text)
    return text, tuple(pairwise([0, *ends]))


def _streamed_ends(backend: Tokenizer, ids: Sequence[int]) -> list[int] | None:
    """Where each token ends, in linear time; None if a token rewrites the text before it."""
    stream = DecodeStream(skip_special_tokens=True)
    ends = []
    end = 0
    for token in ids:
        try:
            end += len(stream.step(backend, token) or "")
        except Exception as error:
            # tokenizers raises bare Exception. Invalid bytes turn what stands before them into U+FFFD.
            if "prefix" not in str(error):
                raise
            return None
        ends.append(end)
    return ends


def _compared_ends(backend: Tokenizer, ids: Sequence[int], text: str) -> list[int]:
    """Where each token ends, in quadratic time: how much of the final text stands once the token is decoded."""
    ends = []
    end = 0
    for count in range(1, len(ids) + 1):
        so_far = backend.decode(ids[:count], skip_special_tokens=True)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(so_far, text, strict=False))
        end = max(end, sum(1 for _ in same))
        ends.append(end)
    return ends
