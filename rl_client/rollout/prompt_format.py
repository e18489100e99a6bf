"""How a prompt's text becomes tokens: as it is, or as the user's turn of the tokenizer's chat template."""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rl_client.errors import DataError, ModelFilesError
from rl_client.training.settings_models import PromptFormatSettings


def encode_prompts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: PromptFormatSettings
) -> list[list[int]]:
    """Token ids of prompts, special tokens included.

    Args:
        texts: The prompts.
        tokenizer: The policy's.
        settings: Whether they stand in a chat template, and behind which system prompt.

    Raises:
        ModelFilesError: If a chat template is asked for that the tokenizer lacks, or that fails.
    """
    if not settings.chat_template:
        # verbose=False: the limit is the run's own; the tokenizer's model_max_length is none of its business.
        rows: list[list[int]] = tokenizer(list(texts), verbose=False)["input_ids"]
        return rows
    if not tokenizer.chat_template:
        raise ModelFilesError(f"{tokenizer.name_or_path}: chat_template is on, and the tokenizer has none")
    system = [] if settings.system_prompt is None else [{"role": "system", "content": settings.system_prompt}]
    chats = [[*system, {"role": "user", "content": text}] for text in texts]
    try:
        rows = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    except TemplateError as error:
        raise ModelFilesError(f"{tokenizer.name_or_path}: its chat template fails: {error}") from error
    return rows


def cut_prompt_ids(
    text: str, tokenizer: PreTrainedTokenizerBase, settings: PromptFormatSettings, *, max_tokens: int
) -> list[int]:
    """Token ids of a prompt cut at its end; special tokens, and all of a chat template, stay.

    Raises:
        DataError: If a chat template leaves no room for the text.
    """
    if not settings.chat_template:
        ids: list[int] = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        return ids
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    while ends:
        (ids,) = encode_prompts([text[: ends[-1]]], tokenizer, settings)
        if len(ids) <= max_tokens:
            return ids
        del ends[max_tokens - len(ids) :]  # as many as are too many; one more round where the cut made new tokens
    raise DataError(f"max_prompt_tokens {max_tokens} leaves no room for a prompt in the chat template")
