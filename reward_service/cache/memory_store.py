"""The most recently used values, as many as fit into a number of bytes."""

from collections import OrderedDict

ENTRY_BYTES = 224
"""What an entry takes in memory besides its value: the key, two objects' heads and the table (measured)."""


class MemoryStore:
    """Keeps values by key; the least recently used go first. For one thread.

    Args:
        max_bytes: Of all entries together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What the entries take."""
        return self._bytes

    @property
    def entries(self) -> int:
        """How many there are."""
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        """A value, which is the most recently used one then."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value, in place of an earlier one. One that is larger than all that may be kept is not."""
        self.drop(key)
        size = len(value) + ENTRY_BYTES
        if size > self._max_bytes:
            return
        self._values[key] = value
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= len(oldest) + ENTRY_BYTES

    def drop(self, key: bytes) -> None:
        """Forget a value."""
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= len(value) + ENTRY_BYTES
