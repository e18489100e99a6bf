import hashlib

import pytest

from reward_service.keys import Key, Role, find_key


def make_key(secret: str, role: Role = Role.SCORE) -> Key:
    return Key(id="a", role=role, sha256=hashlib.sha256(secret.encode()).hexdigest())


@pytest.mark.parametrize("secret", ["one", "two", "käse"])
def test_a_key_is_found_by_its_secret_alone(secret: str) -> None:
    keys = [make_key("one"), make_key("two"), make_key("käse")]
    assert find_key(keys, secret) == make_key(secret)
    assert find_key(keys, make_key(secret).sha256) is None
    assert find_key(keys, secret + " ") is None
    assert find_key([], secret) is None


def test_an_admin_may_score_and_not_the_other_way_round() -> None:
    def allows(role: Role, wanted: Role) -> bool:
        return make_key("a", role).allows(wanted)

    assert allows(Role.ADMIN, Role.SCORE)
    assert allows(Role.ADMIN, Role.ADMIN)
    assert allows(Role.SCORE, Role.SCORE)
    assert not allows(Role.SCORE, Role.ADMIN)
