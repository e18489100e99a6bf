import sqlite3
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from reward_service.cache_settings import CacheSettings
from reward_service.caching import computation_of, opened_cache
from reward_service.errors import ConfigError
from reward_service.registry.store import Store
from reward_service.web.cache_metrics import CacheMetrics


def opened(**settings: Any) -> Any:
    return opened_cache(CacheSettings.model_validate(settings), CacheMetrics(CollectorRegistry()))


def test_the_default_is_memory_alone() -> None:
    with opened() as cache:
        assert cache is not None
        assert not cache.has_disk


def test_neither_memory_nor_file_is_no_cache() -> None:
    with opened(memory_bytes=0) as cache:
        assert cache is None


def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with opened(memory_bytes=0, path=path) as cache:
        assert cache.has_disk
        for number in range(500):
            cache.keep(number.to_bytes(32, "big"), b"[]")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (500,)
    connection.close()


def test_a_file_that_cannot_be_and_one_that_is_not_ours_are_faults_of_the_settings(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    connection = sqlite3.connect(theirs)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    for path in (tmp_path, tmp_path / "nowhere" / "c.db", theirs):
        with pytest.raises(ConfigError, match=r"cache\.path: "), opened(path=path):
            pass


def test_a_disk_that_fails_at_the_start_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(b"not a database" * 1000)
    with opened(path=path) as cache:
        assert cache.has_disk


def test_an_exports_file_the_machine_and_the_device_are_part_of_a_computation(tiny_store: Path) -> None:
    published = Store(tiny_store).resolve("relevance")
    torch = computation_of(published, "torch-fp32", ["cpu"])
    onnx = computation_of(published, "onnxruntime-fp32", ["cpu"])
    assert (list(torch["places"]), torch["file"]) == (["cpu"], "")
    assert onnx["file"] == published.export_record("onnxruntime-fp32").files["model.onnx"]
    assert onnx["places"]["cpu"]["processor"]
    assert set(onnx["places"]["cpu"]["libraries"]) == {"onnxruntime"}
    assert list(computation_of(published, "torch-fp32", ["cuda:1", "cpu", "cuda:0"])["places"]) == ["cuda", "cpu"]
