"""Settings of the protocols of existing trainers: how their texts become items, and scores become one reward."""

from string import Formatter

from pydantic import Field, FiniteFloat, field_validator

from reward_service.section import Section

FIELD_SOURCES = frozenset({"prompt", "label"})
"""What a trainer's request brings that `compat.fields` may use."""

SPECIAL_TOKENS = (
    "<s>",
    "</s>",
    "<pad>",
    "<bos>",
    "<eos>",
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|finetune_right_pad_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
"""Of the tokenizers of Llama, Qwen, Gemma, DeepSeek, GPT-2, T5 and BERT."""


class Compat(Section):
    """The protocols of existing trainers.

    Attributes:
        weights: Weight of each served model in the one scalar of a response. Others are not asked. May be absent where
            only one model is served.
        fields: Named inputs for the models' templates, each a text that may use `{prompt}` and `{label}`.
        special_tokens: Removed from every prompt and response, which trainers send as the policy's tokenizer writes
            them.
        response_after: Where a request brings one text: the response is what follows the last occurrence. The whole
            text when absent.
        prompt_between: Two texts: of a prompt, only what stands between the last occurrence of the first and the next
            of the second is used, such as a chat template's marks around the user's words.
        empty_score: The score of an empty response where a model has none to give; an error when absent.
    """

    weights: dict[str, FiniteFloat] = Field(default_factory=dict)
    fields: dict[str, str] = Field(default_factory=dict)
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    response_after: str | None = Field(default=None, min_length=1)
    prompt_between: tuple[str, str] | None = None
    empty_score: FiniteFloat | None = None

    @field_validator("fields")
    @classmethod
    def _fields_use_what_there_is(cls, fields: dict[str, str]) -> dict[str, str]:
        for name, text in fields.items():
            try:
                parts = list(Formatter().parse(text))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            for _, used, form, conversion in parts:
                if used is not None and (used not in FIELD_SOURCES or form or conversion):
                    raise ValueError(f"{name}: only {{prompt}} and {{label}} may be used, got {{{used}}}")
        return fields

    @field_validator("special_tokens")
    @classmethod
    def _tokens_are_texts(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if "" in tokens:
            raise ValueError("a special token is empty")
        return tokens

    @field_validator("prompt_between")
    @classmethod
    def _marks_are_texts(cls, marks: tuple[str, str] | None) -> tuple[str, str] | None:
        if marks is not None and "" in marks:
            raise ValueError("a mark is empty")
        return marks
