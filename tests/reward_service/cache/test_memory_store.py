import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.cache.memory_store import ENTRY_BYTES, MemoryStore


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_the_least_recently_used_go_first() -> None:
    store = MemoryStore(3 * (ENTRY_BYTES + 1))
    for number in (1, 2, 3):
        store.put(key(number), b"x")
    assert store.get(key(1)) == b"x"
    store.put(key(4), b"y")
    assert [store.get(key(number)) for number in (1, 2, 3, 4)] == [b"x", None, b"x", b"y"]
    assert (store.entries, store.size_bytes) == (3, 3 * (ENTRY_BYTES + 1))


def test_a_new_value_takes_the_place_of_the_old() -> None:
    store = MemoryStore(1000)
    store.put(key(1), b"short")
    store.put(key(1), b"much longer")
    assert store.get(key(1)) == b"much longer"
    assert (store.entries, store.size_bytes) == (1, ENTRY_BYTES + 11)
    store.drop(key(1))
    store.drop(key(1))
    assert (store.get(key(1)), store.entries, store.size_bytes) == (None, 0, 0)


def test_a_value_over_the_bound_takes_nobodys_place() -> None:
    store = MemoryStore(ENTRY_BYTES + 10)
    store.put(key(1), b"x")
    store.put(key(2), b"x" * 11)
    assert (store.get(key(1)), store.get(key(2))) == (b"x", None)
    store.put(key(1), b"x" * 11)
    assert store.get(key(1)) is None, "an old value is not served in the place of a new one"


def test_nothing_is_kept_in_no_bytes() -> None:
    store = MemoryStore(0)
    store.put(key(1), b"")
    assert (store.get(key(1)), store.entries) == (None, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4000), st.integers())
def test_never_takes_more_than_its_bound_and_never_errs(max_bytes: int, seed: int) -> None:
    rng = random.Random(seed)
    store, told = MemoryStore(max_bytes), dict[bytes, bytes]()
    for _ in range(200):
        one = key(rng.randrange(20))
        if rng.random() < 0.5:
            told[one] = bytes(rng.randrange(300))
            store.put(one, told[one])
        else:
            assert store.get(one) in (None, told.get(one))
        assert store.size_bytes <= max_bytes
    sizes = [len(value) + ENTRY_BYTES for number in range(20) if (value := store.get(key(number))) is not None]
    assert (sum(sizes), len(sizes)) == (store.size_bytes, store.entries)
