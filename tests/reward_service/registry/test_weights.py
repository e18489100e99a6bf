import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from reward_service.errors import StoreError
from reward_service.registry.weights import check_finite, find_head, read_tensors

NOT_FINITE = {
    "F64": [struct.pack("<d", float("nan")), struct.pack("<d", float("-inf"))],
    "F32": [struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))],
    "F16": [struct.pack("<e", float("nan")), struct.pack("<e", float("inf"))],
    # The upper halves of the float32 numbers.
    "BF16": [struct.pack("<f", float("nan"))[2:], struct.pack("<f", float("-inf"))[2:]],
    # S.11111.MM and S.1111.111, arXiv 2209.05433, table 1.
    "F8_E5M2": [b"\x7d", b"\xfc"],
    "F8_E4M3": [b"\x7f", b"\xff"],
}
LARGEST = {
    "F64": struct.pack("<d", 1.7976931348623157e308),
    "F32": struct.pack("<f", -3.4028234e38),
    "F16": struct.pack("<e", 65504.0),
    "BF16": struct.pack("<f", 3.3895314e38)[2:],
    "F8_E5M2": b"\x7b",
    "F8_E4M3": b"\x7e",
}
CASES = [(dtype, content) for dtype, contents in NOT_FINITE.items() for content in contents]


@pytest.mark.parametrize(("dtype", "content"), CASES)
def test_a_number_that_is_none_is_found_wherever_it_stands(
    files: Path, safetensors: Callable[..., bytes], dtype: str, content: bytes
) -> None:
    count = (1 << 20) + 3  # The scan goes by pieces of 2**20 numbers.
    zeros = bytes(len(content) * count)
    weights = safetensors(("a", "F32", (1,), bytes(4)), ("b", dtype, (count + 1,), zeros + content))
    (files / "model.safetensors").write_bytes(weights)
    with pytest.raises(StoreError, match=r"model\.safetensors: b holds NaN or an infinity"):
        check_finite(files)


@pytest.mark.parametrize("dtype", LARGEST)
def test_the_largest_numbers_pass(files: Path, safetensors: Callable[..., bytes], dtype: str) -> None:
    (files / "model.safetensors").write_bytes(safetensors(("a", dtype, (1,), LARGEST[dtype])))
    check_finite(files)


def test_integers_and_empty_tensors_pass(files: Path, safetensors: Callable[..., bytes]) -> None:
    weights = safetensors(("a", "I64", (1,), b"\xff" * 8), ("b", "F32", (0,), b""))
    (files / "model.safetensors").write_bytes(weights)
    check_finite(files)


def test_a_flipped_byte_in_the_header_is_told(files: Path) -> None:
    path = files / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:9] + b"\xff" + whole[10:])
    with pytest.raises(StoreError, match=r"model\.safetensors: its safetensors header is malformed"):
        check_finite(files)


@pytest.mark.parametrize(("kept", "fault"), [(-1, "lies outside the file"), (20, "is cut short"), (4, "is cut short")])
def test_a_file_that_is_cut_short_is_told(files: Path, kept: int, fault: str) -> None:
    path = files / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=rf"model\.safetensors: .*{fault}"):
        read_tensors(files)


@pytest.mark.parametrize(
    "content",
    ["[]", '{"a": 1}', '{"a": {"dtype": "F32", "shape": [1]}}', '{"a": {"dtype": "F32", "data_offsets": [0]}}'],
)
def test_a_malformed_header_is_told(files: Path, content: str) -> None:
    (files / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content.encode())
    with pytest.raises(StoreError, match=r"model\.safetensors: "):
        read_tensors(files)


@pytest.fixture
def shards(files: Path, safetensors: Callable[..., bytes]) -> Path:
    """Two shards, of which the second holds the head."""
    (files / "model.safetensors").unlink()
    (files / "model-1.safetensors").write_bytes(safetensors(("a", "F32", (1,), bytes(4))))
    (files / "model-2.safetensors").write_bytes(safetensors(("score.weight", "F32", (3, 1), bytes(12))))
    places = {"a": "model-1.safetensors", "score.weight": "model-2.safetensors"}
    (files / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return files


def test_shards_are_one_model(shards: Path) -> None:
    assert sorted(read_tensors(shards)) == ["a", "score.weight"]
    head = find_head(shards)
    assert (head.path.name, head.shape) == ("model-2.safetensors", (3, 1))


def test_shards_that_the_index_does_not_fit_are_told(shards: Path) -> None:
    index = shards / "model.safetensors.index.json"
    (shards / "model-1.safetensors").rename(shards / "away.safetensors")
    with pytest.raises(StoreError, match=r"index\.json: names model-1\.safetensors, which is missing"):
        read_tensors(shards)
    (shards / "away.safetensors").rename(shards / "model-1.safetensors")
    places = {"a": "model-2.safetensors", "score.weight": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(StoreError, match=r"model-2\.safetensors: lacks a"):
        read_tensors(shards)
    index.write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(StoreError, match=r"index\.json: names"):
        read_tensors(shards)
    index.write_text("{}")
    with pytest.raises(StoreError, match=r"index\.json: has no weight_map"):
        read_tensors(shards)


def test_an_encoder_without_a_head_is_told(files: Path, safetensors: Callable[..., bytes]) -> None:
    (files / "model.safetensors").write_bytes(safetensors(("embeddings.weight", "F32", (1, 1), bytes(4))))
    with pytest.raises(StoreError, match=r"model\.safetensors: has no classifier's weights"):
        find_head(files)
