"""Text of sampled ids, and where in it each token stands.

Offsets come from the sampled ids themselves: tokenizing the decoded text again may divide it differently.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase

from rl_client.errors import DecodeError

Offsets = tuple[tuple[int, int], ...]
"""For each token its half-open code points."""


def decode_with_offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, Offsets]:
    """Decode token by token; the pieces joined are the text.

    A special token has no width. Nor has a token whose bytes do not complete a character; the one that completes it
    holds the whole. Bytes that are still incomplete at the end are no part of the text.

    Args:
        tokenizer: The policy's; a fast one.
        ids: T sampled ids, eos included.

    Returns:
        The text, and T half-open ranges of code points that cover it in order without gap or overlap.

    Raises:
        DecodeError: If the tokenizer is not a fast one, or its text does not grow token by token.
    """
    backend = _fast_backend(tokenizer)
    stream = DecodeStream(skip_special_tokens=True)
    pieces = []
    offsets = []
    end = 0
    for position, token in enumerate(ids):
        try:
            piece = stream.step(backend, int(token)) or ""
        except Exception as error:  # tokenizers raises bare Exception
            raise DecodeError(f"token {token} at position {position} rewrites the text before it: {error}") from error
        pieces.append(piece)
        offsets.append((end, end + len(piece)))
        end += len(piece)
    return "".join(pieces), tuple(offsets)


def _fast_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise DecodeError(f"{type(tokenizer).__name__} is not a fast tokenizer, so its tokens have no offsets")
    return backend
