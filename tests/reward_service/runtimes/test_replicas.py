from pathlib import Path

import pytest
from pydantic import ValidationError

from reward_service.config import Batching, ModelSettings
from reward_service.core.division import Division
from reward_service.errors import StoreError
from reward_service.registry.store import Store
from reward_service.runtimes.replicas import load_divisions


def wanted(**settings: object) -> ModelSettings:
    return ModelSettings.model_validate({"name": "relevance", "runtime": "onnxruntime", **settings})


def test_one_backend_for_each_replica_on_each_device(tiny_store: Path) -> None:
    published = Store(tiny_store).resolve("relevance")
    divisions = load_divisions(published, wanted(devices=["cpu", "cpu"], replicas=2), Batching(threads=1))
    assert [division.runtime for division in divisions] == ["onnxruntime-fp32"] * 4
    assert len({id(division.whole) for division in divisions}) == 4
    for division in divisions:
        division.close()


def test_all_replicas_have_the_runtime_that_was_chosen_for_the_first(
    tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reward_service.runtimes.replicas as module

    chosen: list[str] = []

    def choose(published: object, settings: ModelSettings, batching: Batching) -> object:
        chosen.append(settings.runtime)
        return Division(module.load_backend(published, wanted(runtime="onnxruntime"), batching))  # type: ignore[arg-type]

    monkeypatch.setattr(module, "choose_division", choose)
    published = Store(tiny_store).resolve("relevance")
    divisions = load_divisions(published, wanted(runtime="auto", replicas=3), Batching(threads=1))
    assert chosen == ["auto"]
    assert [division.runtime for division in divisions] == ["onnxruntime-fp32"] * 3


def test_a_device_that_is_not_there_is_told(tiny_store: Path) -> None:
    published = Store(tiny_store).resolve("relevance")
    with pytest.raises(StoreError, match="cuda:7"):
        load_divisions(published, wanted(devices=["cpu", "cuda:7"]), Batching(threads=1))


def test_device_and_devices_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="exclude"):
        wanted(device="cpu", devices=["cpu"])
    with pytest.raises(ValidationError, match="CPU only"):
        wanted(devices=["cpu", "cuda:0"], precision="int8")
