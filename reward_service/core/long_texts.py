"""Tokenizing of single texts, also of ones that are far longer than a model reads.

They may come in any request, and must harm nobody else.
"""

from tokenizers import Encoding, Tokenizer

from reward_service.errors import InvalidRequestError, TooLongError

LONG_CHARS = 16_384
"""The tokenizer takes some 1 us a character, in which, of shorter texts, no other thread of the process runs."""

CUT_CHARS, CUT_CHARS_A_TOKEN = 262_144, 64
"""Characters that a field may have of which all but the beginning is cut; for each of `max_tokens`, where that is more.
How many tokens are cut is told, so all of it is tokenized: 8 MB take 10 s and gigabytes."""

CUT_TOKENS = 256
"""Tokens that a text may have more in two pieces than in one: an unknown word of up to 100 characters has one."""

SURE = 2
"""Times `max_tokens` that a part of a text must have for the whole to be surely too long."""


def tokenize(tokenizer: Tokenizer, text: str) -> Encoding:
    """One text's tokens, without special ones.

    `encode` lets no other thread run until it is done. `encode_batch` does, but waits milliseconds for the tokenizer's
    thread pool on a busy machine, where a segment takes microseconds.
    """
    if len(text) <= LONG_CHARS:
        return tokenizer.encode(text, add_special_tokens=False)
    return tokenizer.encode_batch([text], add_special_tokens=False)[0]


def check_length(tokenizer: Tokenizer, text: str, max_tokens: int) -> None:
    """Refuse a text by its beginning where that is enough: a body of 8 MB has millions of tokens.

    Raises:
        TooLongError: It has far more than `max_tokens`.
    """
    step = max(LONG_CHARS, 8 * max_tokens)
    tokens = 0
    for begin in range(0, len(text) if len(text) > step else 0, step):
        tokens += len(tokenize(tokenizer, text[begin : begin + step]).ids) - CUT_TOKENS
        check_count(tokens, max_tokens)


def check_cuttable(name: str, text_chars: int, max_tokens: int) -> None:
    """Refuse what is far too long even to be cut.

    Args:
        name: The field that may be cut.
        text_chars: How long it is.
        max_tokens: That the model takes.

    Raises:
        TooLongError: It is.
    """
    most = max(CUT_CHARS, CUT_CHARS_A_TOKEN * max_tokens)
    if text_chars > most:
        raise TooLongError(
            f"{name!r} has {text_chars} characters; of more than {most} not even the beginning is read", max_chars=most
        )


def check_count(tokens: int, max_tokens: int) -> None:
    """Refuse an input of which so many tokens are known.

    Raises:
        TooLongError: They are far more than `max_tokens`.
    """
    if tokens > SURE * max_tokens:
        raise TooLongError(
            f"the input has more than {tokens} tokens, the model takes {max_tokens}",
            length_tokens=tokens,
            max_tokens=max_tokens,
        )


def tokens_to_cut(length_tokens: int, max_tokens: int, may_cut: int, cut_field: str | None) -> int:
    """How many tokens of an input are too many for the model.

    Args:
        length_tokens: Of the whole input.
        max_tokens: That the model takes.
        may_cut: How many of them may be cut.
        cut_field: The field whose they are, if there is one.

    Raises:
        TooLongError: More than may be cut.
        InvalidRequestError: The input is empty, as where a decoder's tokenizer adds nothing to a blank response: beside
            others it would get the score of padding, and alone none.
    """
    if not length_tokens:
        raise InvalidRequestError(
            "the input has no token: the response is empty, and the model's template adds nothing"
        )
    cut = max(0, length_tokens - max_tokens)
    if cut > may_cut:
        raise TooLongError(
            f"the input has {length_tokens} tokens, the model takes {max_tokens}"
            + (f", and cutting all of {cut_field!r} is not enough" if cut_field else ""),
            length_tokens=length_tokens,
            max_tokens=max_tokens,
        )
    return cut


def check_unicode(name: str, text: str) -> None:
    """Refuse what no tokenizer takes.

    Raises:
        InvalidRequestError: The text holds a lone surrogate.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name!r} is not valid Unicode at character {error.start}", field=name) from error
