"""Inputs of sequence models whose template says itself where the response stands, such as those of chat formats.

Special tokens of the template's own text, such as `<|im_start|>`, are read as special tokens. In the texts that are
put in they stay text, as everywhere.
"""

import re
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from reward_service.core.long_texts import tokenize

RESPONSE_FIELD = "response"
"""The template field that stands for the response."""

Piece = tuple[str, str | None]
"""Text of the template, or else, where a name follows, the field of that name."""


class ResponseTemplate:
    """A template with `{response}`: the whole input, but for what the tokenizer puts around every input."""

    def __init__(self, tokenizer: Tokenizer, parts: Sequence[tuple[str, str | None]], cut_field: str | None) -> None:
        """Divide a template at its special tokens.

        Args:
            tokenizer: Set to read special tokens as text (`encode_special_tokens`).
            parts: From `core.template.parse_template`.
            cut_field: The field whose tokens `tokenize` tells.

        Raises:
            ValueError: The response stands in it more than once, or is what may be cut; or the tokenizer reads the
                template otherwise in pieces than as a whole, as one that takes white space beside special tokens does.
        """
        names = [name for _, name in parts if name is not None]
        if names.count(RESPONSE_FIELD) != 1:
            raise ValueError(f"{{{RESPONSE_FIELD}}} stands in the template more than once")
        if cut_field == RESPONSE_FIELD:
            raise ValueError("the response is never cut")
        self._tokenizer = tokenizer
        self._cut_field = cut_field
        self.fields = tuple(dict.fromkeys(names))
        self._runs = _divide(tokenizer, parts)
        self._check()

    def tokenize(self, values: Mapping[str, str]) -> tuple[list[int], int, int]:
        """Fill the template.

        Args:
            values: A text for each of `fields`.

        Returns:
            Its ids; the index of the cut field's first token, and one past its last, equal where nothing can be cut.
        """
        ids: list[int] = []
        cut_from, cut_to = 0, 0
        for run in self._runs:
            if isinstance(run, int):
                ids.append(run)
                continue
            text, start, end = "", 0, 0
            for literal, name in run:
                value = literal if name is None else values[name]
                if name is not None and name == self._cut_field:
                    start, end = len(text), len(text) + len(value)
                text += value
            encoding = tokenize(self._tokenizer, text)
            cuttable = [i for i, (first, last) in enumerate(encoding.offsets) if last > start and first < end]
            if cuttable:
                cut_from, cut_to = len(ids) + cuttable[0], len(ids) + cuttable[-1] + 1
            ids.extend(encoding.ids)
        return ids, cut_from, cut_to

    def _check(self) -> None:
        values = dict.fromkeys(self.fields, "a b.")
        pieces = [
            run if isinstance(run, int) else "".join(v if n is None else values[n] for v, n in run)
            for run in self._runs
        ]
        text = "".join(str(self._tokenizer.id_to_token(one)) if isinstance(one, int) else one for one in pieces)
        self._tokenizer.encode_special_tokens = False
        try:
            whole = self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = True
        if whole != self.tokenize(values)[0]:
            raise ValueError(
                "the tokenizer reads this template otherwise in pieces than as a whole: leave out the white space "
                "beside its special tokens"
            )


def _divide(tokenizer: Tokenizer, parts: Sequence[tuple[str, str | None]]) -> list[int | list[Piece]]:
    """Special tokens, and the runs of text between them."""
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    longest_first = sorted(special, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    runs: list[int | list[Piece]] = []
    run: list[Piece] = []
    for literal, name in parts:
        place = 0
        for found in pattern.finditer(literal):
            run.append((literal[place : found.start()], None))
            runs += [run, special[found.group()]]
            run, place = [], found.end()
        run.append((literal[place:], None))
        if name is not None:
            run.append(("", name))
    runs.append(run)
    return [one for one in runs if isinstance(one, int) or any(text or name for text, name in one)]
