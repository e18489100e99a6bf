import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rl_client.errors import DecodeError
from rl_client.rollout.decode import decode_with_offsets


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte is a token, so that any character but ASCII takes several; two merges; eos is also the pad."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, **{character: i + 1 for i, character in enumerate(alphabet)}}
    for merged in ("he", "Ġa"):
        vocabulary[merged] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [("h", "e"), ("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Unigram pieces with a leading-space mark and byte fallback, as T5's and Llama's."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [("▁", -2.0), ("▁the", -3.0), ("▁cat", -3.0), ("s", -3.0), (".", -3.0), ("t", -4.0), ("▁a", -3.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


BYTE_LEVEL = byte_level()
SENTENCEPIECE = sentencepiece_like()


def assert_offsets_tile(text: str, offsets, ids) -> None:
    assert len(offsets) == len(ids)
    assert "".join(text[start:end] for start, end in offsets) == text
    position = 0
    for start, end in offsets:
        assert start == position <= end
        position = end
    assert position == len(text)


def test_words_with_their_leading_space(tokenizer):
    ids = tokenizer("good red .", add_special_tokens=False)["input_ids"]
    text, offsets = decode_with_offsets(tokenizer, [*ids, tokenizer.eos_token_id])
    assert text == "good red ."
    assert offsets == ((0, 4), (4, 8), (8, 10), (10, 10))


def test_an_emoji_of_four_tokens_is_held_by_the_last_one():
    ids = BYTE_LEVEL("a🙂b", add_special_tokens=False)["input_ids"]
    text, offsets = decode_with_offsets(BYTE_LEVEL, ids)
    assert text == "a🙂b"
    assert offsets == ((0, 1), (1, 1), (1, 1), (1, 1), (1, 2), (2, 3))


def test_byte_fallback_pieces_are_held_by_the_last_one():
    ids = SENTENCEPIECE("the é", add_special_tokens=False)["input_ids"]
    text, offsets = decode_with_offsets(SENTENCEPIECE, ids)
    assert text == "the é"
    assert_offsets_tile(text, offsets, ids)
    assert offsets[-2:] == ((4, 4), (4, 5))


def test_bytes_still_incomplete_at_the_end_are_one_replacement_character():
    ids = BYTE_LEVEL("a🙂", add_special_tokens=False)["input_ids"][:-1]
    text, offsets = decode_with_offsets(BYTE_LEVEL, ids)
    assert text == "a\ufffd"
    assert_offsets_tile(text, offsets, ids)


def test_a_byte_that_spoils_the_one_before_it():
    """Byte fallback makes a whole run of bytes U+FFFD once one of them is invalid."""
    ids = [SENTENCEPIECE.convert_tokens_to_ids(token) for token in ("<0x41>", "<0x80>", "▁the")]
    text, offsets = decode_with_offsets(SENTENCEPIECE, ids)
    assert text == "\ufffd\ufffd the"
    assert offsets == ((0, 0), (0, 2), (2, 6))


@pytest.mark.parametrize("ids", [[], [1], [0], [0, 0, 1]])
def test_nothing_but_special_tokens_is_the_empty_text(tokenizer, ids):
    assert decode_with_offsets(tokenizer, ids) == ("", ((0, 0),) * len(ids))


def test_a_special_token_in_the_middle_has_no_width(tokenizer):
    word = tokenizer.convert_tokens_to_ids("▁red")
    text, offsets = decode_with_offsets(tokenizer, [word, 0, word])
    assert text == "red red"
    assert offsets == ((0, 3), (3, 3), (3, 7))


@pytest.mark.parametrize("tok", [BYTE_LEVEL, SENTENCEPIECE], ids=["byte_level", "sentencepiece"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab the cats. é🙂e\u0301漢\r\n\t"), max_size=20))
def test_offsets_tile_the_text_of_encoded_strings(tok, text):
    ids = tok(text, add_special_tokens=False)["input_ids"]
    decoded, offsets = decode_with_offsets(tok, ids)
    assert_offsets_tile(decoded, offsets, ids)
    assert decoded == tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, len(BYTE_LEVEL) - 1), max_size=12))
def test_offsets_tile_the_text_of_any_sampled_bytes(ids):
    """A sampling policy may write invalid UTF-8; offsets must hold still."""
    text, offsets = decode_with_offsets(BYTE_LEVEL, ids)
    assert_offsets_tile(text, offsets, ids)
    assert text == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, len(SENTENCEPIECE) - 1), max_size=12))
def test_offsets_tile_the_text_of_any_sampled_pieces(ids):
    text, offsets = decode_with_offsets(SENTENCEPIECE, ids)
    assert_offsets_tile(text, offsets, ids)
    assert text == SENTENCEPIECE.decode(ids, skip_special_tokens=True)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(DecodeError, match="not a fast tokenizer"):
        decode_with_offsets(object(), [1])
