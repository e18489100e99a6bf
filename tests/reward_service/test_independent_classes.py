"""A toxicity classifier with a sigmoid for each class, from its directory to the scores, against its logits by hand."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import BertConfig, BertForSequenceClassification
from typer.testing import CliRunner, Result

from reward_proto.models import ModelKind
from reward_service.cli import app
from reward_service.config import Batching, Limits, ModelSettings
from reward_service.domain import ItemScore, TextItem
from reward_service.registry.store import Store
from reward_service.serve import load_source
from reward_service.web.metrics import Metrics
from tests.reward_service.conftest import SPECIAL, byte_tokenizer

LABELS = ("toxic", "severe_toxic", "threat")
TEXT = "You are kind. I will find you! Thanks."
ENDS = (13, 30, 38)
TOLERANCE = 1e-5


def make_checkpoint(directory: Path) -> Path:
    """A tiny seeded model in the layout of `unitary/toxic-bert`."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).eval().save_pretrained(directory)
    byte_tokenizer().save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("toxic-bert"))


def publish(checkpoint: Path, store: Path, *options: str, granularity: str = "sentence") -> Result:
    given = ["--name", "toxicity", "--kind", "sequence_classification", "--granularity", granularity, "--template", ""]
    return CliRunner().invoke(app, ["models", "publish", str(checkpoint), "--store", str(store), *given, *options])


def probabilities(checkpoint: Path, text: str) -> dict[str, float]:
    """What the model says of a text, computed with transformers alone."""
    model = BertForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        logits = model(torch.tensor([byte_tokenizer().encode(text).ids])).logits[0]
    return dict(zip(LABELS, logits.sigmoid().tolist(), strict=True))


def scored(store: Path, runtime: str, *texts: str) -> list[ItemScore]:
    wanted = ModelSettings.model_validate({"name": "toxicity", "runtime": runtime, "precision": "fp32"})
    metrics = Metrics(CollectorRegistry(), 4)
    source = load_source(Store(store), wanted, Limits(), Batching(threads=1), ThreadPoolExecutor(1), metrics)
    source.start()
    try:
        outcome = asyncio.run(source.score([TextItem("", text) for text in texts], None))
    finally:
        source.close(20)
    results = [result for (result,) in outcome.results]
    assert all(isinstance(result, ItemScore) for result in results)
    return results  # type: ignore[return-value]


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_each_sentence_scores_what_it_adds_to_the_toxicity(checkpoint: Path, tmp_path: Path, runtime: str) -> None:
    result = publish(checkpoint, tmp_path, "--scoring", "prefix_difference")
    assert result.exit_code == 0, result.output
    assert "taking 'toxic' of toxic, severe_toxic, threat for the error" in result.stderr
    assert CliRunner().invoke(app, ["export", "toxicity", "--store", str(tmp_path)]).exit_code == 0
    toxicity = [probabilities(checkpoint, TEXT[:end])["toxic"] for end in ENDS]
    expected = [0.0 - toxicity[0], toxicity[0] - toxicity[1], toxicity[1] - toxicity[2]]
    (score, *_) = scored(tmp_path, runtime, TEXT, "Short.", "")
    assert max(map(abs, expected)) > 0.01
    assert [segment.span.end for segment in score.segments] == list(ENDS)
    assert [segment.score for segment in score.segments] == pytest.approx(expected, abs=TOLERANCE)
    assert score.sequence_score == pytest.approx(-toxicity[2], abs=TOLERANCE)


def test_of_several_errors_the_likeliest_counts_and_is_named(checkpoint: Path, tmp_path: Path) -> None:
    """`threat` is likely everywhere and is no error here."""
    errors = ("toxic", "severe_toxic")
    options = [part for label in errors for part in ("--error-label", label)]
    result = publish(checkpoint, tmp_path, *options, "--ok-label", "fine", granularity="sequence")
    assert result.exit_code == 0, result.output
    texts = [TEXT, "Hello.", "No! No! No!", "x", "Thank you very much indeed."]
    told = set()
    for text, score in zip(texts, scored(tmp_path, "torch", *texts), strict=True):
        found = probabilities(checkpoint, text)
        worst = max(errors, key=lambda name: found[name])
        assert score.sequence_score == pytest.approx(1 - found[worst], abs=TOLERANCE)
        (segment,) = score.segments
        assert segment.label == (worst if found[worst] > 0.5 else "fine")
        told.add(segment.label)
    assert told == {"severe_toxic", "fine"}
    manifest = Store(tmp_path).resolve("toxicity").manifest
    assert manifest.logit_heads[0].verdicts == (*LABELS, "fine")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            ["--error-label", "rude"],
            "error labels rude are not among the labels, which are toxic, severe_toxic",
        ),
        (["--ok-label", "toxic"], "ok_label is none of them"),
        (["--kind", ModelKind.TOKEN_CLASSIFICATION.value], "is a BertForSequenceClassification"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path, options: list[str], fault: str) -> None:
    result = publish(checkpoint, tmp_path, *options, granularity="sequence")
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.split())


def test_a_model_whose_errors_have_no_usual_name_wants_them_named(checkpoint: Path, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "other")
    config = json.loads((directory / "config.json").read_text())
    names = ("anger", "joy", "fear")
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    (directory / "config.json").write_text(json.dumps(config))
    result = publish(directory, tmp_path / "store", granularity="sequence")
    assert result.exit_code == 2
    assert "--error-label): anger, joy, fear" in " ".join(result.stderr.split())
