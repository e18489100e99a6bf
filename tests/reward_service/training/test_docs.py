"""docs/reward-models.md against the code: its settings load, and its tables name what there is."""

import json
import re
from pathlib import Path

import yaml

from reward_proto.feedback import FeedbackFile
from reward_service.training.config import ModelConfig, NetworkConfig, TrainConfig, TrainingConfig
from reward_service.training.data_files import DataFile
from reward_service.training.figures import pair_metrics, span_metrics
from reward_service.training.jsonl import MarkedSpan, PairLine, SpanLine, read_jsonl
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


def test_the_jsonl_example_reads(tmp_path: Path) -> None:
    (text,) = blocks("jsonl")
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    feedback = read_jsonl([DataFile(tmp_path / "a.jsonl")])
    (marked,) = feedback.span_rows()
    (error,) = marked.errors
    assert marked.item.response[error.start : error.end] == "who was tall,"
    (pair,) = feedback.pair_rows("preference", 0.85)
    assert pair.pairs == ((0, 1),)
    page = PAGE.read_text(encoding="utf-8")
    names = {*SpanLine.model_fields, *PairLine.model_fields, *MarkedSpan.model_fields}
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_figure_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in {**span_metrics([], []), **pair_metrics([], [])} if f"`{name}`" not in page] == []
