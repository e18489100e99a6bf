import hashlib

from rl_client.rollout.seeds import derive_seed


def test_seeds_fit_torch_and_differ_by_every_word():
    seeds = {derive_seed(s, purpose, step) for s in (0, 1) for purpose in ("a", "b") for step in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_on_every_machine():
    digest = hashlib.sha256(b"7/generate/3").hexdigest()
    assert derive_seed(7, "generate", 3) == int(digest[:16], 16) // 2
