import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from rl_client.errors import ConfigError
from rl_client.training.config import EvaluateConfig, ServiceSettings, SftConfig, TrainConfig, load_config

DOCS = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "prompts.jsonl").write_text("")
    return tmp_path


@pytest.fixture
def train_settings(files):
    return {
        "output": str(files / "run"),
        "policy": str(files / "policy"),
        "prompts": str(files / "prompts.jsonl"),
        "service": {"url": "http://127.0.0.1:8000"},
        "rewards": [{"model": "relevance@latest", "weight": 0.3, "shaping": "centered"}],
        "generation": {"samples_per_prompt": 4},
        "ppo": {"steps": 3, "prompts_per_step": 2, "minibatch_size": 4},
    }


def write(path: Path, settings) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def faults(files, settings, kind=TrainConfig) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(files / "c.yaml", settings), kind)
    return caught.value.faults


def test_a_good_file_loads_with_defaults(files, train_settings):
    config = load_config(write(files / "c.yaml", train_settings), TrainConfig)
    assert config.responses_per_step == 8
    assert config.rewards[0].name == "relevance"
    assert config.ppo.clip_range == 0.2
    assert config.value is None


def test_numbers_in_scientific_notation_are_numbers(files, train_settings):
    path = files / "c.yaml"
    write(path, train_settings)
    path.write_text(path.read_text().replace("  steps: 3", "  steps: 3\n  learning_rate: 3e-4"))
    assert load_config(path, TrainConfig).ppo.learning_rate == 3e-4


def test_every_fault_is_reported_at_once_with_its_path(files, train_settings):
    train_settings["ppo"] |= {"steps": 0, "gamma": 1.5, "clip_rnage": 0.1}
    train_settings["rewards"][0]["shaping"] = "squared"
    train_settings["device"] = "tpu"
    train_settings["policy"] = str(files / "nowhere")
    del train_settings["service"]["url"]
    found = faults(files, train_settings)
    for where in (
        "ppo.steps",
        "ppo.gamma",
        "ppo.clip_rnage: unknown setting",
        "rewards.0.shaping",
        "device",
        "service.url",
        "policy",
    ):
        assert any(fault.startswith(where) for fault in found), where
    assert len(found) == 7


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ppo": {"steps": 1, "prompts_per_step": 2, "minibatch_size": 9}}, "minibatch_size 9 is larger than"),
        (
            {"ppo": {"steps": 1, "prompts_per_step": 2, "minibatch_size": 4, "microbatch_size": 5}},
            "ppo: microbatch_size is larger",
        ),
        ({"generation": {"greedy": True}}, "greedy decoding is for evaluation"),
        ({"rewards": [{"model": "a"}, {"model": "a@latest"}]}, "more than once: a"),
        ({"rewards": []}, "rewards"),
        (
            {"ppo": {"steps": 1, "prompts_per_step": 2, "minibatch_size": 4, "learning_rate": float("nan")}},
            "learning_rate",
        ),
    ],
)
def test_settings_that_do_not_fit_together(files, train_settings, change, fault):
    assert any(fault in found for found in faults(files, train_settings | change))


def test_evaluation_may_leave_the_service_out(files):
    settings = {"output": "x", "policy": str(files / "policy"), "prompts": str(files / "prompts.jsonl")}
    assert load_config(write(files / "c.yaml", settings), EvaluateConfig).generation.greedy
    found = faults(files, settings | {"rewards": [{"model": "a"}]}, EvaluateConfig)
    assert any("rewards need a service" in fault for fault in found)
    found = faults(files, settings | {"generation": {"greedy": True, "temperature": 0.7}}, EvaluateConfig)
    assert any("greedy decoding takes no temperature" in fault for fault in found)


@pytest.mark.parametrize(
    ("content", "fault"), [("a: [", "is not YAML"), ("- a", "must be a mapping"), ("", "must be a mapping")]
)
def test_what_is_no_settings_file(tmp_path, content, fault):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=fault):
        load_config(path, SftConfig)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml", SftConfig)


def test_the_api_key_comes_from_the_environment(files, train_settings, monkeypatch):
    train_settings["service"]["api_key_env"] = "REWARD_KEY_FOR_TEST"
    assert any("REWARD_KEY_FOR_TEST, which is not set" in fault for fault in faults(files, train_settings))
    monkeypatch.setenv("REWARD_KEY_FOR_TEST", "secret")
    config = load_config(files / "c.yaml", TrainConfig)
    assert config.service.api_key == "secret"
    assert "secret" not in str(config.model_dump())


def settings_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        nested = next((a for a in inner if issubclass(a, BaseModel)), None)
        names += settings_of(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return names


@pytest.mark.parametrize("kind", [SftConfig, TrainConfig, EvaluateConfig])
def test_every_setting_is_documented(kind):
    documented = set(re.findall(r"^\| `([^`]+)`", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE))
    missing = [name for name in settings_of(kind) if name not in documented]
    assert not missing


def test_the_example_in_the_docs_is_valid():
    example, *_ = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    config = TrainConfig.model_validate(yaml.safe_load(example))
    assert [reward.shaping.value for reward in config.rewards] == ["centered", "sign", "zscore"]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http:host"])
def test_an_address_must_be_whole(url):
    with pytest.raises(ValidationError, match=r"must be a whole address, such as http://127\.0\.0\.1:8000"):
        ServiceSettings(url=url)
    assert ServiceSettings(url="https://rewards.example/v1").url == "https://rewards.example/v1"
