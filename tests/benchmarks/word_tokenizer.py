"""A tokenizer of made-up words for the benchmarks' policies: `w0`, `w1` and so on are one token each."""

from pathlib import Path

FIRST_WORD = 3
"""Id of `w0`, after those of `<pad>`, `</s>` and `<unk>`."""


def save_word_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write it, of so many ids in all, as a T5 wants it: `</s>` ends each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *(f"▁w{number}" for number in range(vocabulary - FIRST_WORD))]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words.index("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
