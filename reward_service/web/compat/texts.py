"""Where the prompt and the response stand in what a trainer sends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from reward_service.compat_settings import Compat
from reward_service.domain import TextItem
from reward_service.errors import InvalidRequestError

LABEL = "label"


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and response as a trainer sent them, special tokens included.

    Attributes:
        prompt: What the policy was given; empty where the protocol does not tell it.
        response: What it wrote.
        label: The trainer's own column beside the prompt, where it sent a text.
        cut: Whether the response was cut out of a longer text; the white space at its ends is then the chat template's.
    """

    prompt: str
    response: str
    label: str | None = None
    cut: bool = False


def sample_of_query(query: str, prompt: str, label: str | None, path: str, settings: Compat) -> Sample:
    """Take the prompt off the beginning of `prompt + response`.

    The tokenizer may have written special tokens or white space before the prompt that the prompt itself lacks.

    Raises:
        InvalidRequestError: The text does not begin with the prompt, also without special tokens.
    """
    if query.startswith(prompt):
        return Sample(prompt, query[len(prompt) :], label, cut=True)
    cleaned = _without(query, settings.special_tokens).lstrip()
    beginning = _without(prompt, settings.special_tokens).lstrip()
    if not cleaned.startswith(beginning):
        raise InvalidRequestError(
            f"{path}: does not begin with its prompt; compat.special_tokens may lack a token of the policy", path=path
        )
    return Sample(prompt, cleaned[len(beginning) :], label, cut=True)


def sample_of_text(text: str, path: str, settings: Compat) -> Sample:
    """Divide one text at the last `response_after`; all of it is the response where that is not set.

    Raises:
        InvalidRequestError: The mark is not there.
    """
    if settings.response_after is None:
        return Sample("", text)
    prompt, mark, response = text.rpartition(settings.response_after)
    if not mark:
        raise InvalidRequestError(f"{path}: has no {settings.response_after!r} (compat.response_after)", path=path)
    return Sample(prompt, response, cut=True)


def to_item(sample: Sample, path: str, settings: Compat) -> TextItem:
    """What the models read: no special tokens, and the fields of their templates.

    Raises:
        InvalidRequestError: The prompt lacks the marks of `prompt_between`.
    """
    marked = sample.prompt
    if settings.prompt_between is not None and marked:
        begin, end = settings.prompt_between
        _, found, rest = marked.rpartition(begin)
        inside, closed, _ = rest.partition(end)
        if not found or not closed:
            raise InvalidRequestError(
                f"{path}: the prompt lacks {begin!r} or {end!r} (compat.prompt_between)", path=path
            )
        marked = inside
    prompt = _without(marked, settings.special_tokens)
    response = _without(sample.response, settings.special_tokens)
    if sample.cut:
        prompt, response = prompt.strip(), response.strip()
    known = {"prompt": prompt} | ({} if sample.label is None else {LABEL: sample.label})
    fields = {
        name: text.format_map(known)
        for name, text in settings.fields.items()
        if sample.label is not None or LABEL not in {used for _, used, _, _ in Formatter().parse(text)}
    }
    return TextItem(prompt, response, fields)


def _without(text: str, tokens: Sequence[str]) -> str:
    return _pattern(tuple(tokens)).sub("", text) if tokens else text


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))
