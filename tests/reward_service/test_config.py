from pathlib import Path
from typing import Any

import pytest
import yaml

from reward_service.config import PLACES, Runtime, ServiceSettings, is_lone_process_of_several, load_settings, read_key
from reward_service.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "deploy" / "configs").glob("service-*.yaml"))
MINIMAL: dict[str, Any] = {"store": "runs/store", "models": [{"name": "relevance"}]}


def load(tmp_path: Path, content: Any) -> ServiceSettings:
    path = tmp_path / "service.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_settings(path, ServiceSettings)


def faults(tmp_path: Path, content: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert str(tmp_path / "service.yaml") in str(caught.value)
    return caught.value.faults


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 8000, Path("runs/store"))
    (model,) = settings.models
    assert (model.runtime, model.precision, model.device) == (Runtime.AUTO, None, "cpu")
    assert (settings.limits.max_items, settings.limits.max_body_bytes) == (256, 8388608)
    assert (settings.limits.max_queue_items, settings.limits.max_queue_tokens) == (4096, 1048576)
    assert (settings.batching.max_batch_tokens, settings.batching.threads) == (2048, 2)


def test_reads_every_section(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        host: 0.0.0.0
        port: 0
        store: s
        models:
          - {name: relevance@good, runtime: torch, precision: bf16, device: "cuda:1"}
          - {name: completeness@0123456789ab, runtime: onnxruntime, precision: int8}
        limits: {max_items: 10, max_body_bytes: 2048, max_queue_items: 20, max_queue_tokens: 30}
        batching: {max_batch_tokens: 100, threads: 1}
        compat: {weights: {relevance: 0.3, completeness: -1}}
        """,
    )
    assert [model.served_name for model in settings.models] == ["relevance", "completeness"]
    assert settings.limits.max_queue_tokens == 30
    assert settings.compat.weights == {"relevance": 0.3, "completeness": -1}


def test_every_fault_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        {
            "port": 70000,
            "stor": "x",
            "models": [{"name": "a b"}, {"name": "ok", "runtime": "tensorrt", "devise": "cpu"}],
            "limits": {"max_items": 0},
            "batching": {"max_padding": 1.0},
        },
    )
    places = [fault.split(": ")[0] for fault in told]
    assert places == [
        "port",
        "store",
        "models[0].name",
        "models[1].runtime",
        "models[1].devise",
        "limits.max_items",
        "batching.max_padding",
        "stor",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": []}, "models: "),
        ({"models": [{"name": "a"}, {"name": "a@old"}]}, "served twice: a"),
        ({"models": [{"name": "a", "runtime": "openvino", "device": "cuda"}]}, "on the CPU only"),
        ({"models": [{"name": "a", "precision": "int8", "device": "cuda:1"}]}, "on the CPU only"),
        ({"models": [{"name": "a", "runtime": "torch", "precision": "int8"}]}, "does not compute in int8"),
        ({"models": [{"name": "a", "runtime": "onnxruntime", "precision": "bf16"}]}, "does not compute in bf16"),
        ({"models": [{"name": "a", "device": "tpu"}]}, "models[0].device"),
        ({"compat": {"weights": {"relevance": float("nan")}}}, "compat.weights.relevance"),
        ({"compat": {"protocols": []}}, "compat.protocols"),
        ({"limits": {"max_items": 10, "max_queue_items": 5}}, "below max_items"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    (fault,) = faults(tmp_path, {**MINIMAL, **change})
    assert told in fault


def test_faults_of_every_source_have_their_plain_place(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        {
            "store": "s",
            "models": [
                {"source": "perspective", "name": "toxicity", "requests_per_s": 0, "key": "secret"},
                {"source": "judge", "name": "judge", "base_url": "http://h/v1", "model": "m", "labels": {"bad": "x"}},
                {"source": "callable", "name": "mine", "function": "os.system", "kind": "classifier"},
                {"source": "magic", "name": "x"},
                "relevance",
                {"name": "relevance", "runtime": "tensorrt"},
            ],
        },
    )
    assert [fault.split(": ")[0] for fault in told] == [
        "models[0].requests_per_s",
        "models[0].key",
        "models[1].labels",
        "models[2].function",
        "models[3].source",
        "models[4]",
        "models[5].runtime",
    ]
    assert "store, perspective, judge or callable" in told[4]


def test_names_and_weights_hold_over_all_sources(tmp_path: Path) -> None:
    mine = {"source": "callable", "name": "mine", "function": "a:b", "kind": "regression"}
    settings = load(tmp_path, {"store": "s", "models": [{"name": "a@x"}, mine], "compat": {"weights": {"mine": 2.0}}})
    assert [model.served_name for model in settings.models] == ["a", "mine"]
    assert "served twice: mine" in faults(tmp_path, {"store": "s", "models": [{"name": "mine@x"}, mine]})[0]


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", " secret\n")
    assert read_key("SOME_KEY") == "secret"
    for blank in ("", "  "):
        monkeypatch.setenv("SOME_KEY", blank)
        with pytest.raises(ValueError, match="SOME_KEY is not set"):
            read_key("SOME_KEY")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, "- a\n") == ["the file must hold a mapping"]
    assert faults(tmp_path, "") == ["the file must hold a mapping"]
    assert "line 1" in faults(tmp_path, "{")[0]
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml", ServiceSettings)


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, MINIMAL).port = 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    load_settings(path, ServiceSettings)


def test_configurations_are_shipped() -> None:
    assert EXAMPLES


def test_every_setting_is_documented() -> None:
    """The table of settings in docs/service.md has a row for each setting of the file, and for nothing else."""
    text = (REPOSITORY / "docs" / "service.md").read_text(encoding="utf-8")
    table = text.partition("\n## Settings\n")[2].partition("\n## ")[0]
    documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    schema = ServiceSettings.model_json_schema()

    def paths(node: dict[str, Any], prefix: str) -> set[str]:
        if "$ref" in node:
            return paths(schema["$defs"][node["$ref"].rpartition("/")[2]], prefix)
        if "oneOf" in node:  # The rewards that are not encoders have a page of their own.
            return paths({"$ref": "#/$defs/ModelSettings"}, prefix)
        if node.get("type") == "array":
            return paths(node["items"], f"{prefix}[]")
        if "properties" in node:
            return {path for name, child in node["properties"].items() for path in paths(child, f"{prefix}.{name}")}
        return {prefix.lstrip(".")}

    assert documented == paths(schema, "")


def test_a_lone_process_of_several_is_known_by_what_it_was_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_CPU", "MASTER_ADDR", *PLACES):
        monkeypatch.delenv(name, raising=False)
    assert not is_lone_process_of_several()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert not is_lone_process_of_several()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert is_lone_process_of_several()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_lone_process_of_several()
