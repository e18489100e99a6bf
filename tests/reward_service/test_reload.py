import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_service.config import AnyModelSettings, ServiceSettings, load_settings
from reward_service.core.fair_share import JobPolicies
from reward_service.errors import StoreError
from reward_service.key_file import add_key
from reward_service.keys import Role
from reward_service.reload import Reload
from reward_service.web.access import Access


class Followed:
    """In place of the lineup; `test_lineup.py` has the real one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fault: Exception | None = None

    async def follow(self, models: Sequence[AnyModelSettings]) -> None:
        if self.fault is not None:
            raise self.fault
        self.names = [model.name for model in models]


class Rig:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "service.yaml"
        self.keys = folder / "keys.yaml"
        add_key(self.keys, Role.SCORE)
        self.write()
        self.access = Access()
        self.policies = JobPolicies()
        self.lineup = Followed()
        self._reload = Reload(
            self.read(),
            self.read,
            self.access,
            self.policies,
            self.lineup,  # type: ignore[arg-type]
        )

    def read(self) -> ServiceSettings:
        return load_settings(self.file, ServiceSettings)

    def write(self, **settings: Any) -> None:
        given = {"store": "s", "models": [{"name": "a"}], "auth": {"keys": str(self.keys)}, **settings}
        self.file.write_text(yaml.safe_dump(given))

    def reload(self, **settings: Any) -> None:
        self.write(**settings)
        asyncio.run(self._reload())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves the log's level and handlers to pytest, and puts them back."""
    root = logging.getLogger()
    level = root.level

    def configure(level: str, log_format: str) -> None:
        root.setLevel(level.upper())

    monkeypatch.setattr("reward_service.reload.configure_logging", configure)
    yield
    root.setLevel(level)


def test_what_can_change_does(rig: Rig) -> None:
    rig.reload(models=[{"name": "b"}], log_level="debug", fairness={"jobs": {"night": {"weight": 4}}})
    assert rig.lineup.names == ["b"]
    assert rig.access.keys is not None
    assert len(rig.access.keys) == 1
    assert (rig.policies.of("night").weight, rig.policies.of("day").weight) == (4, 1)
    assert logging.getLogger().level == logging.DEBUG
    add_key(rig.keys, Role.ADMIN)
    rig.reload(auth={"keys": str(rig.keys), "open_metrics": False})
    assert len(rig.access.keys) == 2
    assert not rig.access.open_metrics


def test_what_needs_a_restart_is_named(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.reload(host="0.0.0.0", store="elsewhere", limits={"max_items": 3}, log_level="info")
    (told,) = [record.getMessage() for record in caplog.records if "restart" in record.getMessage()]
    assert told == "needs a restart to change: host, store, limits"


def test_a_faulty_file_changes_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.reload(port="x", models=[{"name": "b"}])
    assert "port" in caplog.text
    rig.keys.write_text("keys: 1")
    rig.reload(models=[{"name": "b"}])
    assert "keys.yaml" in caplog.text
    rig.file.unlink()
    asyncio.run(rig._reload())
    assert caplog.text.count("the old settings stay") == 3
    assert (rig.lineup.names, rig.access.keys) == ([], None)


def test_models_that_cannot_be_loaded_do_not_hold_up_a_revoked_key(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.lineup.fault = StoreError("no such model")
    rig.reload()
    assert rig.access.keys is not None
    assert "the old models stay: no such model" in caplog.text


def test_keys_that_are_gone_are_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.reload()
    rig.reload(auth={})
    assert rig.access.keys is None
    assert "everybody who reaches the port may score" in caplog.text
