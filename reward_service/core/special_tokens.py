"""Which of a tokenizer's tokens stand around a text, between texts, and after the end."""

from collections.abc import Iterator

from tokenizers import Tokenizer

SEPARATORS = ("[SEP]", "</s>", "<sep>", "<eos>", "<|endoftext|>", "<|end_of_text|>")
"""Tokens that separate texts, or end one, by their usual names."""

PADS = ("[PAD]", "<pad>", "<|padding|>", "<|pad|>")
"""Tokens that fill a batch up, by their usual names."""


def special_ids(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer's post-processor puts before and after an input, found on a word of its vocabulary.

    Raises:
        ValueError: It has no word of its own.
    """
    for probe in _plain_tokens(tokenizer):
        encoding = tokenizer.encode(probe)
        mask = encoding.special_tokens_mask
        if 0 in mask:
            first, last = mask.index(0), len(mask) - mask[::-1].index(0)
            return encoding.ids[:first], encoding.ids[last:]
    raise ValueError("the tokenizer gives no token for any of its own words")


def _plain_tokens(tokenizer: Tokenizer) -> Iterator[str]:
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return (token for token in tokenizer.get_vocab() if token not in special)


def first_known(tokenizer: Tokenizer, names: tuple[str, ...]) -> int | None:
    """The id of the first of these tokens that there is."""
    ids = (tokenizer.token_to_id(name) for name in names)
    return next((found for found in ids if found is not None), None)
