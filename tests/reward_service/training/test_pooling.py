"""Models that read the mean or the sum of a segment's tokens: trained, judged, exported and served."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from reward_proto.models import ModelKind
from reward_service.cli import app
from reward_service.config import Batching, Limits, ModelSettings, load_settings
from reward_service.core.scorer import Scorer
from reward_service.domain import ItemScore, Pooling
from reward_service.registry.store import Store
from reward_service.serve import load_source
from reward_service.training.config import TrainConfig
from reward_service.training.data_files import DataFile
from reward_service.training.qa_feedback import read_qa_feedback, text_items
from reward_service.training.train import train_models
from reward_service.web.metrics import Metrics
from tests.reward_service.training.conftest import write_config

NAMES = ("factuality", "preference")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, feedback_files: tuple[Path, Path]) -> Store:
    folder = tmp_path_factory.mktemp("pooling")
    path = write_config(folder / "train.yaml", encoder_dir, feedback_files, folder / "store")
    content = json.loads(path.read_text())
    content["models"]["factuality"]["pooling"] = "mean"
    content["models"]["preference"]["pooling"] = "sum"
    path.write_text(json.dumps(content))
    train_models(load_settings(path, TrainConfig))
    return Store(folder / "store")


def test_both_learn_their_habit(store: Store) -> None:
    factuality, preference = (store.resolve(name).manifest for name in NAMES)
    assert factuality.pooling is Pooling.MEAN
    assert factuality.metrics["auc"] > 0.95
    # A regressor is one column of a token classifier.
    assert preference.kind is ModelKind.TOKEN_CLASSIFICATION
    (head,) = preference.heads
    assert (head.name, head.kind, head.pooling) == ("preference", ModelKind.SEQUENCE_REGRESSION, Pooling.SUM)
    assert head.metrics["accuracy"] > 0.95


@pytest.mark.parametrize(("name", "figures"), [("factuality", "n_segments"), ("preference", "n_pairs")])
def test_evaluate_gives_what_is_served_on_every_runtime(
    store: Store, tmp_path: Path, feedback_files: tuple[Path, Path], name: str, figures: str
) -> None:
    run = CliRunner()
    root = store.resolve(name).path.parents[1]
    assert run.invoke(app, ["export", name, "--store", str(root)]).exit_code == 0
    common = ["evaluate", name, "--store", str(root), "--data", str(feedback_files[1])]
    out = tmp_path / "out.json"
    result = run.invoke(app, [*common, "--scores", str(tmp_path / "scores"), "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())[figures] > 0  # At the top of the file, as for any one model.
    told = [json.loads(line) for line in (tmp_path / "scores").read_text().splitlines()]
    feedback = read_qa_feedback([DataFile(feedback_files[1])])
    expected = [
        (text_items(feedback.examples[line["index"]])[line["response"]], line["start"], line["end"], line["score"])
        for line in told
    ]
    for runtime in ("torch", "onnxruntime"):
        settings = ModelSettings.model_validate({"name": name, "runtime": runtime})
        pool = ThreadPoolExecutor(1)
        source = load_source(store, settings, Limits(), Batching(threads=1), pool, Metrics(CollectorRegistry(), 4))
        source.start()
        scorer = Scorer([source], pool)
        try:
            outcome = asyncio.run(scorer.score([item for item, *_ in expected]))
        finally:
            scorer.close(5.0)
        assert [model.card.name for model in outcome.models] == [name]
        for result_of, (_, start, end, score) in zip(outcome.models[0].results, expected, strict=True):
            assert isinstance(result_of, ItemScore)
            (found,) = [one for one in result_of.segments if (one.span.start, one.span.end) == (start, end)]
            assert found.score == pytest.approx(score, abs=TOLERANCE)
