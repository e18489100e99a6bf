"""A seed for every use of chance, derived from the run's, so that a resumed run draws what an unbroken one would."""

import hashlib

SEED_BITS = 63
"""torch takes seeds that fit a signed 64-bit integer."""


def derive_seed(seed: int, *words: str | int) -> int:
    """A seed of its own for one use of chance.

    Args:
        seed: The run's seed.
        words: What it is for: a purpose, a step, an epoch.

    Returns:
        An integer in [0, 2^63), the same on every machine and Python.
    """
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - SEED_BITS)
