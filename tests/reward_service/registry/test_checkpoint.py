import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reward_proto.models import ModelKind
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.domain import Readout
from reward_service.errors import StoreError
from reward_service.registry.architecture import read_config
from reward_service.registry.checkpoint import check_checkpoint, read_tokenizer
from reward_service.registry.manifest import Manifest


def refused(files: Path, manifest: Manifest) -> str:
    with pytest.raises(StoreError) as caught:
        check_checkpoint(files, manifest, read_config(files))
    return str(caught.value).removeprefix(f"{files}/")


def with_config(files: Path, **changes: Any) -> Path:
    config = {**read_config(files), **changes}
    (files / "config.json").write_text(json.dumps(config))
    return files


def with_token(files: Path, token: str, number: int, *, special: bool = True) -> Path:
    content = json.loads((files / "tokenizer.json").read_text())
    content["model"]["vocab"][token] = number
    if special:
        content["added_tokens"].append({**content["added_tokens"][0], "id": number, "content": token})
    (files / "tokenizer.json").write_text(json.dumps(content))
    return files


def test_parts_that_fit_pass(files: Path, manifest: Manifest) -> None:
    check_checkpoint(files, manifest, read_config(files))


def test_labels_must_be_as_many_as_the_heads_rows(files: Path, manifest: Manifest) -> None:
    three = manifest.model_copy(update={"labels": ("error", "ok", "unsure")})
    assert refused(files, three) == (
        "model.safetensors: classifier.weight gives 2 logit(s), but the model has 3 labels (error, ok, unsure)"
    )
    regressor = {"kind": ModelKind.SEQUENCE_REGRESSION, "labels": (), "ok_label": "", "granularity": "sequence"}
    assert "2 logit(s), but the model has 1 logit(s)" in refused(files, manifest.model_copy(update=regressor))


def test_labels_must_be_those_of_the_config_in_its_order(files: Path, manifest: Manifest) -> None:
    swapped = manifest.model_copy(update={"labels": ("ok", "error")})
    assert refused(files, swapped) == "config.json: its labels are, by index, error, ok; not ok, error"
    with_config(files, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    check_checkpoint(files, swapped, read_config(files))
    with_config(files, id2label={"0": "a", "1": "b", "2": "c"}, label2id={})
    assert refused(files, manifest) == "config.json: names 3 labels, but classifier.weight has 2 rows"
    with_config(files, id2label={"0": "error", "1": "ok"}, label2id={"error": 1, "ok": 0})
    assert refused(files, manifest) == "config.json: id2label and label2id contradict each other on error, ok"


def test_the_head_must_be_of_the_kind(files: Path, manifest: Manifest) -> None:
    with_config(files, architectures=["BertForSequenceClassification"])
    assert (
        refused(files, manifest) == "config.json: is a BertForSequenceClassification, not a token_classification model"
    )


def test_a_model_that_cannot_see_ahead_is_not_read_before_its_segments(files: Path, manifest: Manifest) -> None:
    with_config(files, model_type="llama")
    assert refused(files, manifest).startswith("config.json: a llama model cannot see ahead")
    check_checkpoint(files, manifest.model_copy(update={"readout": Readout.AFTER}), read_config(files))


def test_more_tokens_than_positions(files: Path, manifest: Manifest) -> None:
    long = manifest.model_copy(update={"max_tokens": 65})
    assert refused(files, long) == "config.json: has 64 positions, fewer than max_tokens 65"


def test_a_tokenizer_of_a_larger_vocabulary(files: Path, manifest: Manifest) -> None:
    with_token(files, "two", 8, special=False)
    assert refused(files, manifest) == (
        "tokenizer.json: is not this model's: it gives ids up to 8, but the model has 8 embeddings"
    )


def test_a_tokenizer_that_leaves_many_embeddings_without_a_token(files: Path, manifest: Manifest) -> None:
    with_config(files, vocab_size=30_522)
    with_token(files, "two", 28_995, special=False)  # What BERT's cased tokenizer would leave of the uncased model's.
    assert refused(files, manifest) == (
        "tokenizer.json: is not this model's: it gives ids up to 28995 only, but the model has 30522 embeddings"
    )
    with_config(files, vocab_size=102_400)
    with_token(files, "three", 100_001, special=False)  # DeepSeek-V2's own.
    check_checkpoint(files, manifest, read_config(files))


@pytest.mark.parametrize(("key", "name"), [("cls_token_id", "'one'"), ("sep_token_id", "'one'")])
def test_a_tokenizer_with_words_where_the_config_has_marks(
    files: Path, manifest: Manifest, key: str, name: str
) -> None:
    with_config(files, **{key: 1})
    assert refused(files, manifest) == (
        f"tokenizer.json: is not this model's: {key} 1 of config.json is {name}, which is no special token"
    )
    with_config(files, **{key: 50281})  # A default of transformers, past the model's embeddings.
    check_checkpoint(files, manifest, read_config(files))


def test_a_tokenizer_with_another_token_for_padding(files: Path, manifest: Manifest) -> None:
    with_token(with_token(files, "[PAD]", 3), "[CLS]", 4)
    with_config(files, pad_token_id=3)
    check_checkpoint(files, manifest, read_config(files))
    with_config(files, pad_token_id=4)
    assert refused(files, manifest) == "config.json: pad_token_id is 4, but the tokenizer pads with 3"


def test_a_decoder_that_reads_its_last_token_needs_the_id_that_inputs_are_padded_with(
    files: Path, manifest: Manifest
) -> None:
    reader = manifest.model_copy(update={"kind": ModelKind.SEQUENCE_CLASSIFICATION, "granularity": "sequence"})
    with_token(with_token(with_config(files, model_type="qwen2"), "[CLS]", 4), "[PAD]", 3)
    assert refused(files, reader) == (
        "config.json: has no pad_token_id, so that scores would depend on the batch; the tokenizer's is 3"
    )
    with_config(files, pad_token_id=4)
    assert refused(files, reader) == "config.json: pad_token_id is 4, but the tokenizer pads with 3"
    with_config(files, pad_token_id=3)
    check_checkpoint(files, reader, read_config(files))


def test_inputs_are_padded_with_the_configs_token_where_the_tokenizer_names_none(files: Path) -> None:
    with_config(with_token(files, "<|eot|>", 4), pad_token_id=4)
    assert read_tokenizer(files).padding["pad_id"] == 4
    assert InputEncoder(read_tokenizer(files), InputSpec("", (ModelKind.SEQUENCE_REGRESSION,), 9)).pad_id == 4
    assert read_tokenizer(with_config(files, pad_token_id=1)).padding is None  # A word.


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"sep_token": "</s>"}, "lacks '</s>', the sep_token of tokenizer_config.json"),
        ({"pad_token": {"content": "<pad>"}}, "lacks '<pad>', the pad_token of tokenizer_config.json"),
        ({"added_tokens_decoder": {"2": {"content": "[SEP]"}}}, "has '[SEP]' at 0, tokenizer_config.json at 2"),
    ],
)
def test_a_tokenizer_that_its_own_settings_do_not_fit(
    files: Path, manifest: Manifest, content: dict[str, Any], fault: str
) -> None:
    (files / "tokenizer_config.json").write_text(json.dumps(content))
    assert refused(files, manifest) == f"tokenizer.json: {fault}"


def test_a_tokenizer_that_its_word_list_does_not_fit(files: Path, manifest: Manifest) -> None:
    (files / "vocab.txt").write_text("[SEP]\none\n[UNK]\n")
    check_checkpoint(files, manifest, read_config(files))
    (files / "vocab.txt").write_text("[SEP]\ntwo\n[UNK]\n")
    assert refused(files, manifest) == "tokenizer.json: is not that of vocab.txt, which has 'two' at 1"


@pytest.mark.parametrize(
    ("content", "fault"), [("{}", "Model missing"), (None, "adds no end token and has no known separator")]
)
def test_a_tokenizer_that_is_of_no_use(files: Path, manifest: Manifest, content: str | None, fault: str) -> None:
    path = files / "tokenizer.json"
    path.write_text(content or path.read_text().replace("[SEP]", "[ELSE]"))
    message = refused(files, manifest)
    assert message.startswith("tokenizer.json: ")
    assert fault in message


def test_a_template_that_is_none(files: Path, manifest: Manifest) -> None:
    assert refused(files, manifest.model_copy(update={"template": "{"})).startswith("manifest.json: template '{'")
    assert "exactly once" in refused(files, manifest.model_copy(update={"cut_field": "context"}))


def test_a_weight_that_is_no_number(files: Path, manifest: Manifest, safetensors: Callable[..., bytes]) -> None:
    weights = safetensors(("classifier.weight", "BF16", (2, 1), b"\x00\x00\xc0\x7f"))
    (files / "model.safetensors").write_bytes(weights)
    assert refused(files, manifest) == "model.safetensors: classifier.weight holds NaN or an infinity"
