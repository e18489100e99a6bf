"""What safetensors files hold, read from their headers and scanned with numpy: no torch is needed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward_service.errors import StoreError
from reward_service.registry.files import WEIGHTS_FILE, WEIGHTS_INDEX_FILE, read_json_object

HEAD_WEIGHTS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "classifier.linear_out.weight",
    "score.weight",
    "classification_head.out_proj.weight",
    "logits_proj.weight",
)
"""Names of a classifier's last matrix, one row a logit, over transformers' architectures."""

_LENGTH_BYTES = 8
_SCANNED_VALUES = 1 << 20

# Where every bit of the mask is set the number is NaN or infinite: its exponent is all ones. The last 8-bit format has
# no infinity and one NaN, all ones.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's place.

    Attributes:
        name: In the model.
        path: The file that holds it.
        dtype: safetensors' name of it, such as `BF16`.
        shape: Its dimensions.
        start: Offset in the file, in bytes.
        length: In bytes.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a model, of one file or of shards.

    Raises:
        StoreError: A file is missing or malformed, or the index of the shards and the shards disagree.
    """
    single, index = directory / WEIGHTS_FILE, directory / WEIGHTS_INDEX_FILE
    if single.exists():
        return {tensor.name: tensor for tensor in _read_header(single)}
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise StoreError(f"{index}: has no weight_map")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        path = directory / name
        if path.parent != directory or not path.exists():
            raise StoreError(f"{index}: names {name}, which is missing")
        tensors.update((tensor.name, tensor) for tensor in _read_header(path))
    for tensor_name, file_name in places.items():
        if tensor_name not in tensors or tensors[tensor_name].path.name != file_name:
            raise StoreError(f"{directory / file_name}: lacks {tensor_name}, which {WEIGHTS_INDEX_FILE} says it has")
    return tensors


def check_finite(directory: Path) -> None:
    """Read every weight.

    Raises:
        StoreError: One is NaN or infinite; names the file and the tensor.
    """
    for tensor in read_tensors(directory).values():
        if tensor.dtype not in _EXPONENTS or not tensor.length:
            continue
        unsigned, exponent = _EXPONENTS[tensor.dtype]
        values: NDArray[Any] = np.memmap(
            tensor.path, dtype=unsigned, mode="r", offset=tensor.start, shape=(tensor.length // unsigned().itemsize,)
        )
        mask = unsigned(exponent)
        for first in range(0, len(values), _SCANNED_VALUES):
            # In pieces, so that what numpy makes of one stays in the cache.
            if (values[first : first + _SCANNED_VALUES] & mask).max() == mask:
                raise StoreError(f"{tensor.path}: {tensor.name} holds NaN or an infinity")


def find_head(directory: Path) -> Tensor:
    """The classifier's last matrix, whose first dimension is the number of logits.

    Raises:
        StoreError: None has a known name, so that the model has no head, or one that would be random.
    """
    tensors = read_tensors(directory)
    found = next((tensors[name] for name in HEAD_WEIGHTS if name in tensors), None)
    if found is None or len(found.shape) != 2:
        file = WEIGHTS_FILE if (directory / WEIGHTS_FILE).exists() else WEIGHTS_INDEX_FILE
        raise StoreError(f"{directory / file}: has no classifier's weights ({', '.join(HEAD_WEIGHTS)})")
    return found


def _read_header(path: Path) -> Iterator[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        data = _LENGTH_BYTES + length
        if data > size:
            raise StoreError(f"{path}: is cut short, or is no safetensors file")
        try:
            header = json.loads(stream.read(length))
            entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
            found = [
                Tensor(name, path, entry["dtype"], tuple(entry["shape"]), data + first, last - first)
                for name, entry in entries
                for first, last in [entry["data_offsets"]]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path}: its safetensors header is malformed: {error}") from error
    for tensor in found:
        if tensor.length < 0 or tensor.start < data or tensor.start + tensor.length > size:
            raise StoreError(f"{path}: {tensor.name} lies outside the file, which is cut short or malformed")
    yield from found
