"""docs/reward-models.md against the code: its settings load, and its tables name what there is."""

import json
import re
from pathlib import Path

import yaml

from reward_proto.feedback import FeedbackFile
from reward_service.training.config import ModelConfig, NetworkConfig, TrainConfig, TrainingConfig
from reward_service.training.data_files import DataFile
from reward_service.training.qa_feedback import read_qa_feedback

PAGE = Path(__file__).parents[3] / "docs" / "reward-models.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_settings_example_loads() -> None:
    text = "".join(blocks("yaml"))
    config = TrainConfig.model_validate(yaml.safe_load(text))
    assert config.models["completeness"].training.epochs == 2
    assert config.models["completeness"].training.max_tokens == 2048
    assert config.networks["quality"].training.max_tokens == 2048


def test_the_feedback_example_reads(tmp_path: Path) -> None:
    (text,) = blocks("json")
    (tmp_path / "a.json").write_text(f"[{text}]", encoding="utf-8")
    (example,) = read_qa_feedback([DataFile(tmp_path / "a.json")]).examples
    (error,) = example.feedback.errors
    assert example.prediction_1[error.start : error.end] == "who was tall,"
    assert json.loads(FeedbackFile.dump_json([example], by_alias=True))[0].keys() >= json.loads(text).keys()


def test_every_setting_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = [name for name in TrainConfig.model_fields if name not in {"data", "models"}]
    names += [f"networks.NAME.{name}" for name in NetworkConfig.model_fields if name != "training"]
    names += [f"training.{name}" for name in TrainingConfig.model_fields]
    names += [f"models.NAME.{name}" for name in ModelConfig.model_fields if name != "training"]
    assert [name for name in names if f"`{name}`" not in page] == []
