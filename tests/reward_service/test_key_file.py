import hashlib
import stat
from pathlib import Path

import pytest
import yaml

from reward_service.errors import ConfigError
from reward_service.key_file import add_key, read_keys
from reward_service.keys import Role, find_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_the_file_holds_the_hash_and_not_the_key(file: Path) -> None:
    secret = add_key(file, Role.SCORE, "summaries")
    (key,) = read_keys(file)
    assert secret not in file.read_text()
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.role, key.job) == (Role.SCORE, "summaries")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        add_key(tmp_path / "nowhere" / "keys.yaml", Role.SCORE)


def test_keys_are_added_and_all_are_found(file: Path) -> None:
    secrets = [add_key(file, Role.SCORE, "a"), add_key(file, Role.ADMIN), add_key(file, Role.SCORE)]
    keys = read_keys(file)
    assert [find_key(keys, secret) for secret in secrets] == list(keys)
    assert len({key.id for key in keys}) == len(set(secrets)) == 3
    assert min(map(len, secrets)) >= 43  # 256 bits in base 64


@pytest.mark.parametrize("wrong", ["", "x", "frk_", "é", "\ud800".encode("utf-8", "replace").decode()])
def test_a_wrong_key_is_nobodys(file: Path, wrong: str) -> None:
    secret = add_key(file, Role.ADMIN)
    keys = read_keys(file)
    assert find_key(keys, wrong) is None
    assert find_key(keys, secret[:-1]) is None
    assert find_key(keys, secret + "a") is None
    assert find_key(keys, keys[0].sha256) is None, "the hash is no key"
    assert find_key((), secret) is None


def test_faults_are_all_told(file: Path) -> None:
    good = {"id": "a", "role": "score", "sha256": "0" * 64}
    faulty = [{**good, "role": "root"}, {**good, "sha256": "x"}, {**good, "job": "a b"}, {**good, "secret": "s"}]
    file.write_text(yaml.safe_dump({"keys": faulty}))
    with pytest.raises(ConfigError) as raised:
        read_keys(file)
    assert [fault.partition(":")[0] for fault in raised.value.faults] == [
        "keys[0].role",
        "keys[1].sha256",
        "keys[2].job",
        "keys[3].secret",
    ]
    file.write_text(yaml.safe_dump({"keys": [good, good]}))
    with pytest.raises(ConfigError, match="the same id twice"):
        read_keys(file)


def test_nothing_is_added_to_a_file_with_faults(file: Path) -> None:
    file.write_text("keys: 1\n")
    with pytest.raises(ConfigError):
        add_key(file, Role.SCORE)
    assert file.read_text() == "keys: 1\n"


def test_a_job_must_be_a_name(file: Path) -> None:
    with pytest.raises(ConfigError, match="not a job name"):
        add_key(file, Role.SCORE, "two words")
    assert not file.exists()
