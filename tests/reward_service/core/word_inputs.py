"""Tokenizers of a few words, and an item and an input's settings to encode with them."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from reward_proto.models import ModelKind
from reward_service.core.encode import InputSpec
from reward_service.domain import Span, TextItem

WORDS = [*"q:a.,[]/s<>", "ctx", "one", "two", "three", "four", "five", "six", "sep"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word_tokenizer(special: list[str], single: str, ends: list[str]) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(token, special.index(token)) for token in ends]
        )
    return tokenizer


def bert() -> Tokenizer:
    return word_tokenizer(BERT, "[CLS] $A [SEP]", ["[CLS]", "[SEP]"])


def span_spec(**changes: object) -> InputSpec:
    given = {"template": "q: {q} ctx: {ctx} a:", "kinds": (ModelKind.TOKEN_CLASSIFICATION,), "max_tokens": 64}
    return InputSpec(**{**given, **changes})


def item(response: str = "one two. three", **fields: str) -> TextItem:
    return TextItem("the prompt", response, {"q": "one", "ctx": "two three four", **fields})


SPANS = (Span(0, 8), Span(9, 14))


def tokens_of(tokenizer: Tokenizer, ids: object) -> str:
    return " ".join(tokenizer.id_to_token(int(index)) for index in ids)
