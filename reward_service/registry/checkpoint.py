"""Whether the parts of a checkpoint fit each other: weights, head, labels, tokenizer, template. No torch is needed."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reward_proto.models import ModelKind
from reward_service.core.encode import InputEncoder
from reward_service.domain import Readout
from reward_service.errors import StoreError
from reward_service.registry.architecture import (
    are_named,
    check_architecture,
    class_labels,
    is_decoder_only,
    position_limit,
    read_config,
)
from reward_service.registry.files import CONFIG_FILE, MANIFEST_FILE, TOKENIZER_FILE, read_json_object
from reward_service.registry.manifest import Manifest
from reward_service.registry.weights import check_finite, find_head

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILE = "vocab.txt"

SPARE_EMBEDDINGS = 1_000
"""More embeddings than this without a token, and `SPARE_SHARE` of all, are those of another tokenizer's tokens."""

SPARE_SHARE = 0.04
"""Models round their embeddings up: DeepSeek-V2 has 2.3 % that no token uses, Phi-2 1.8 %. BERT's cased tokenizer would
leave 5 % of the uncased model's."""

_MARKS = ("pad_token", "cls_token", "sep_token", "bos_token", "eos_token", "unk_token", "mask_token")


def check_checkpoint(directory: Path, manifest: Manifest, config: dict[str, Any]) -> None:
    """Refuse a model whose parts do not fit each other, at publishing and at each loading.

    Every weight is read once more for it, which takes about a fifth of the time of checking the files' digests.

    Args:
        directory: The model's files.
        manifest: What they are published as.
        config: What its config.json says or, at publishing, is going to say.

    Raises:
        StoreError: Naming the file and the fault.
    """
    check_architecture(directory, config, manifest.kind, are_independent=bool(manifest.error_labels))
    check_head(directory, config, manifest)
    limit = position_limit(config)
    if limit is not None and manifest.max_tokens > limit:
        raise StoreError(
            f"{directory / CONFIG_FILE}: has {limit} positions, fewer than max_tokens {manifest.max_tokens}"
        )
    if (
        is_decoder_only(config)
        and manifest.kind is ModelKind.TOKEN_CLASSIFICATION
        and manifest.readout is Readout.BEFORE
    ):
        raise StoreError(
            f"{directory / CONFIG_FILE}: a {config.get('model_type')} model cannot see ahead, so its segments are read "
            "at the separator after them, not before (readout after)"
        )
    encoder = check_tokenizer(directory, config, manifest)
    check_padding(directory, config, manifest, encoder)
    check_finite(directory)


def check_head(directory: Path, config: dict[str, Any], manifest: Manifest) -> None:
    """Compare the manifest's classes with the rows of the classifier's weights and with the names in config.json.

    Raises:
        StoreError: They differ.
    """
    head = find_head(directory)
    width = sum(one.width for one in manifest.logit_heads)
    if head.shape[0] != width:
        expected = f"{width} labels ({', '.join(manifest.labels)})" if manifest.labels else f"{width} logit(s)"
        raise StoreError(f"{head.path}: {head.name} gives {head.shape[0]} logit(s), but the model has {expected}")
    try:
        names = class_labels(config)
    except ValueError as error:
        raise StoreError(f"{directory / CONFIG_FILE}: {error}") from error
    if len(names) != width:
        raise StoreError(f"{directory / CONFIG_FILE}: names {len(names)} labels, but {head.name} has {width} rows")
    if manifest.labels and are_named(names) and names != manifest.labels:
        raise StoreError(
            f"{directory / CONFIG_FILE}: its labels are, by index, {', '.join(names)}; not {', '.join(manifest.labels)}"
        )


def check_tokenizer(directory: Path, config: dict[str, Any], manifest: Manifest) -> InputEncoder:
    """Compare the tokenizer with the model's embeddings and with the tokens that the other files name.

    Returns:
        The tokenizer with the manifest's template.

    Raises:
        StoreError: It gives ids that the model has no embedding for, lacks or renames a special token, has no
            separator, is not the one that vocab.txt is of, or the template is malformed.
    """
    path = directory / TOKENIZER_FILE
    tokenizer = read_tokenizer(directory)
    ids = tokenizer.get_vocab()
    largest = max(ids.values(), default=-1)
    embeddings = config.get("vocab_size")
    if isinstance(embeddings, int) and largest >= embeddings:
        raise StoreError(
            f"{path}: is not this model's: it gives ids up to {largest}, but the model has {embeddings} embeddings"
        )
    if isinstance(embeddings, int) and embeddings - largest - 1 > max(SPARE_EMBEDDINGS, SPARE_SHARE * embeddings):
        raise StoreError(
            f"{path}: is not this model's: it gives ids up to {largest} only, but the model has {embeddings} embeddings"
        )
    _check_marks(directory, ids)
    _check_vocabulary(directory, ids)
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    try:
        encoder = InputEncoder(tokenizer, manifest.input_spec)
    except ValueError as error:
        raise StoreError(f"{path if 'tokenizer' in str(error) else directory / MANIFEST_FILE}: {error}") from error
    special |= {encoder.separator_id, encoder.pad_id}
    for key in ("pad_token_id", "cls_token_id", "sep_token_id"):
        number = config.get(key)
        # An id past the embeddings is a default of transformers that this model does not use.
        if not isinstance(number, int) or (isinstance(embeddings, int) and number >= embeddings):
            continue
        if number not in special:
            name = next((repr(token) for token, place in ids.items() if place == number), "no token")
            raise StoreError(
                f"{path}: is not this model's: {key} {number} of {CONFIG_FILE} is {name}, which is no special token"
            )
    return encoder


def read_tokenizer(directory: Path) -> Tokenizer:
    """A model's tokenizer, set to pad with config.json's `pad_token_id` where that is a special token of it.

    Raises:
        StoreError: tokenizer.json or config.json cannot be read.
    """
    path = directory / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise StoreError(f"{path}: {error}") from error
    number = read_config(directory).get("pad_token_id")
    token = tokenizer.get_added_tokens_decoder().get(number) if isinstance(number, int) else None
    if token is not None and token.special:
        tokenizer.enable_padding(pad_id=number, pad_token=token.content)
    return tokenizer


def complete_config(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """What config.json should say: what it says and, if a model needs `pad_token_id` and has none, the tokenizer's.

    A decoder-only sequence classifier reads its last token that is not `pad_token_id`. Without one it takes no batch.

    Raises:
        StoreError: As `check_tokenizer`.
    """
    config = read_config(directory)
    if not _reads_last(config, manifest) or config.get("pad_token_id") is not None:
        return config
    return {**config, "pad_token_id": check_tokenizer(directory, config, manifest).pad_id}


def check_padding(directory: Path, config: dict[str, Any], manifest: Manifest, encoder: InputEncoder) -> None:
    """Compare the id that inputs are padded with and the one that the model takes for padding.

    Raises:
        StoreError: They differ, or a model that must have one has none: scores would depend on the batch.
    """
    number = config.get("pad_token_id")
    if number is None and _reads_last(config, manifest):
        raise StoreError(
            f"{directory / CONFIG_FILE}: has no pad_token_id, so that scores would depend on the batch; the "
            f"tokenizer's is {encoder.pad_id}"
        )
    # Without a token of its own for padding the encoder takes the separator, which most models never look at.
    is_harmless = encoder.pad_id == encoder.separator_id and not _reads_last(config, manifest)
    if number is None or number == encoder.pad_id or is_harmless:
        return
    raise StoreError(
        f"{directory / CONFIG_FILE}: pad_token_id is {number}, but the tokenizer pads with {encoder.pad_id}"
    )


def _reads_last(config: dict[str, Any], manifest: Manifest) -> bool:
    return is_decoder_only(config) and manifest.kind is not ModelKind.TOKEN_CLASSIFICATION


def _check_marks(directory: Path, ids: dict[str, int]) -> None:
    """Tokens that tokenizer_config.json names must be the tokenizer's, under the same ids."""
    path = directory / TOKENIZER_CONFIG_FILE
    if not path.exists():
        return
    content = read_json_object(path)
    for key in _MARKS:
        mark = content.get(key)
        name = mark.get("content") if isinstance(mark, dict) else mark
        if isinstance(name, str) and name not in ids:
            raise StoreError(f"{directory / TOKENIZER_FILE}: lacks {name!r}, the {key} of {TOKENIZER_CONFIG_FILE}")
    added = content.get("added_tokens_decoder")
    for number, token in added.items() if isinstance(added, dict) else ():
        name = token.get("content") if isinstance(token, dict) else None
        if isinstance(name, str) and str(ids.get(name)) != str(number):
            raise StoreError(
                f"{directory / TOKENIZER_FILE}: has {name!r} at {ids.get(name)}, {TOKENIZER_CONFIG_FILE} at {number}"
            )


def _check_vocabulary(directory: Path, ids: dict[str, int]) -> None:
    """A vocab.txt beside tokenizer.json must list the same tokens."""
    path = directory / VOCABULARY_FILE
    if not path.exists():
        return
    try:
        listed = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: is not UTF-8: {error}") from error
    for number, token in enumerate(listed):
        word = token.rstrip("\r")
        if word and ids.get(word) != number:
            raise StoreError(
                f"{directory / TOKENIZER_FILE}: is not that of {VOCABULARY_FILE}, which has {word!r} at {number}"
            )
