from pathlib import Path

from typer.testing import CliRunner

from reward_service.cli import app
from reward_service.key_file import read_keys
from reward_service.keys import Role, find_key


def test_new_prints_the_key_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    ended = CliRunner().invoke(app, ["keys", "new", "--role", "admin", "--job", "night", "--file", str(file)])
    assert ended.exit_code == 0
    key = find_key(read_keys(file), ended.stdout.strip())
    assert key is not None
    assert (key.role, key.job) == (Role.ADMIN, "night")


def test_faults_are_told_without_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("[]")
    ended = CliRunner().invoke(app, ["keys", "new", "--file", str(file)])
    assert ended.exit_code == 2
    assert "must hold a mapping" in ended.stderr
