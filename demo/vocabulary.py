"""Word-level tokenizers for the world's text, as plain `tokenizer.json` files."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from demo.world import ATTRIBUTES, ENTITIES, FLUFF, PASSAGE_TEMPLATES, QUESTION_TEMPLATES, STATEMENT_TEMPLATES

_GLUE = ("question: context: answer: and , . ?",)


def words() -> list[str]:
    """Every word and mark that the world's texts can hold, sorted."""
    clauses = (*STATEMENT_TEMPLATES, *FLUFF)
    openings = [f"{clause[0].upper()}{clause[1:]}" for clause in clauses]
    texts = [*clauses, *openings, *PASSAGE_TEMPLATES, *QUESTION_TEMPLATES, *_GLUE, *ENTITIES, *ATTRIBUTES]
    texts += [" ".join(values) for values in ATTRIBUTES.values()]
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", re.sub(r"\{\w+\}", " ", text))})


def _word_level(special: Sequence[str], unknown: str, vocabulary: Sequence[str]) -> Tokenizer:
    ids = {word: index for index, word in enumerate([*special, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # The clean-up joins punctuation to the word before it, so decoded answers read as ordinary text.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def save_policy_tokenizer(directory: Path) -> int:
    """Write a T5-style tokenizer (`<pad>`, `</s>`, `<unk>`); return its vocabulary size."""
    tokenizer = _word_level(("<pad>", "</s>", "<unk>"), "<unk>", words())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def save_encoder_tokenizer(directory: Path) -> int:
    """Write a BERT-style lower-case tokenizer (`[CLS]`, `[SEP]`, ...); return its vocabulary size."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = _word_level(special, "[UNK]", sorted({word.lower() for word in words()}))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=512,
    )
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())
