"""Every architecture in miniature, with its tokenizer; and how near two ways to the same scores come."""

from dataclasses import dataclass
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.reward_service.training.conftest import COLOURS, WORDS

TOLERANCE = 1e-5
MAX_TOKENS = 96
ENCODER_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
}
MARK_IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Architecture:
    """How one is made small.

    Attributes:
        config: Of its smallest model. Windows are shorter than the texts, so that they matter.
        marks: Special tokens; an encoder's tokenizer puts the last two around a text, a decoder's the first before it.
        begins: Whether a decoder's tokenizer does so.
    """

    config: Any
    marks: tuple[str, ...] = tuple(ENCODER_MARKS)
    begins: bool = True

    @property
    def is_decoder(self) -> bool:
        return self.marks != tuple(ENCODER_MARKS)


def architectures() -> dict[str, Architecture]:
    positions = {"max_position_embeddings": MAX_TOKENS}
    shifted = {"max_position_embeddings": MAX_TOKENS + 1, "type_vocab_size": 1}  # RoBERTa's start after the pad's id.
    deberta = {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    }
    modern = {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3}
    grouped = {"num_key_value_heads": 1}
    llama = {"bos_token_id": 0, "eos_token_id": 1}  # As many of them come, without a token for padding.
    qwen = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    llama_marks, qwen_marks = ("<s>", "</s>", "<unk>"), ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    return {
        "bert": Architecture(transformers.BertConfig(**SIZES, **MARK_IDS, **NO_DROPOUT, **positions)),
        "roberta": Architecture(transformers.RobertaConfig(**SIZES, **MARK_IDS, **NO_DROPOUT, **shifted)),
        "deberta-v2": Architecture(
            transformers.DebertaV2Config(**SIZES, **MARK_IDS, **NO_DROPOUT, **positions, **deberta)
        ),
        "modernbert": Architecture(transformers.ModernBertConfig(**SIZES, **MARK_IDS, **positions, **modern)),
        "longformer": Architecture(
            transformers.LongformerConfig(
                **SIZES, **MARK_IDS, **NO_DROPOUT, **shifted, attention_window=[8, 16], sep_token_id=3
            )
        ),
        "llama": Architecture(transformers.LlamaConfig(**SIZES, **positions, **grouped, **llama), llama_marks),
        "qwen2": Architecture(
            transformers.Qwen2Config(**SIZES, **positions, **grouped, **qwen, **window), qwen_marks, False
        ),
        "qwen3": Architecture(
            transformers.Qwen3Config(**SIZES, **positions, **grouped, **qwen, head_dim=8), qwen_marks, False
        ),
    }


def make_tokenizer(architecture: Architecture) -> Tokenizer:
    marks = list(architecture.marks)
    vocabulary = {word: index for index, word in enumerate([*marks, *WORDS, *COLOURS])}
    unknown = next((mark for mark in ("[UNK]", "<unk>") if mark in marks), marks[0])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(marks)
    if not architecture.is_decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    elif architecture.begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def assert_close(got: list[list[float]], expected: list[list[float]]) -> None:
    assert [len(row) for row in got] == [len(row) for row in expected]
    for one, two in zip(got, expected, strict=True):
        assert one == pytest.approx(two, abs=TOLERANCE, rel=0)
