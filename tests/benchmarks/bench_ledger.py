"""How much of its throughput the service keeps while it records every score.

Two services on the same model, one without a ledger and one with, get the same requests in turn, round after round.
The ratio of the medians is printed, and the ratio of CPU time an item (Linux only), which other work on the machine
disturbs less. Afterwards the ledger must hold every score that was answered.

    python tests/benchmarks/bench_ledger.py [--url postgresql://...] [--texts] [--rounds 5] [--store STORE --model NAME]
    python tests/benchmarks/bench_ledger.py --cached --repeats 40

Without a store it takes MiniLM, as bench_service.py does. `--cached` lets both answer from their caches, so that
nothing is computed and the ledger's share is as large as it can be.
"""

import argparse
import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench_service import NO_CACHE, cpu_seconds, make_bodies, make_texts, publish_minilm, time_service
from serving import serve

from reward_service.ledger.database import opened
from reward_service.ledger.reader import Filters, Reading

CLIENTS = 8


def start(wanted: argparse.Namespace, folder: Path, ledger: dict[str, Any], stack: ExitStack) -> tuple[int, str]:
    """A service that ends with the stack; returns its process and its address."""
    settings = {
        "store": str(wanted.store.resolve()),
        "models": [{"name": wanted.model, "runtime": "onnxruntime"}],
        "batching": {"threads": wanted.threads},
        "cache": {} if wanted.cached else NO_CACHE,
        "ledger": ledger,
    }
    folder.mkdir()
    process, url = serve(settings, folder)
    stack.callback(process.wait, 60)
    stack.callback(process.terminate)
    return process.pid, url


def measure(wanted: argparse.Namespace, folder: Path, ledger: dict[str, Any]) -> int:
    """Print the ratios; returns how many items the service with a ledger scored."""
    bodies = make_bodies(wanted.model, make_texts(wanted.items, seed=0), wanted.request_items)
    scored = 0
    with ExitStack() as stack:
        services = {
            "without": start(wanted, folder / "without", {}, stack),
            "with": start(wanted, folder / "with", {**ledger, "texts": wanted.texts}, stack),
        }
        rates: dict[str, list[float]] = {name: [] for name in services}
        cpu_ms: dict[str, list[float]] = {name: [] for name in services}
        for number in range(wanted.rounds + 1):
            times = wanted.repeats if number else 1
            items = times * wanted.items
            for name, (pid, url) in services.items():
                before_s = cpu_seconds(pid)
                rate, _ = asyncio.run(time_service(url, times * bodies, items, CLIENTS))
                spent_ms = 1000 * (cpu_seconds(pid) - before_s) / items
                scored += items * (name == "with")
                if number:  # The first requests of a process are slower.
                    rates[name].append(rate)
                    cpu_ms[name].append(spent_ms)
    middle = {name: (statistics.median(rates[name]), statistics.median(cpu_ms[name])) for name in services}
    for name, (rate, spent_ms) in middle.items():
        print(f"{name} a ledger: {rate:.1f} items/s, CPU {spent_ms:.3f} ms an item")
    (rate, spent_ms), (own_rate, own_ms) = middle["with"], middle["without"]
    by_round = statistics.median(a / b for a, b in zip(rates["with"], rates["without"], strict=True))
    print(f"throughput kept: {rate / own_rate:.3f} (median of the rounds' ratios {by_round:.3f})")
    print(f"CPU time an item: {spent_ms / own_ms:.3f} of that without")
    return scored


def main() -> None:
    """Run the rounds, then count what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="an empty PostgreSQL database; a SQLite file otherwise")
    parser.add_argument("--texts", action="store_true", help="record texts too")
    parser.add_argument("--cached", action="store_true", help="answer from the cache")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="of the items in each round; for --cached")
    parser.add_argument("--requests-of", dest="request_items", type=int, default=16, help="items of one request")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if wanted.store is None:
            wanted.store = folder / "store"
            publish_minilm(wanted.store, wanted.model, folder)
        ledger = {"url": wanted.url} if wanted.url else {"path": str(folder / "ledger.db")}
        scored = measure(wanted, folder, ledger)
        with opened(wanted.url or folder / "ledger.db") as database:
            recorded = Reading(database, Filters()).count()
        print(f"recorded: {recorded} of {scored} scores")
        assert recorded == scored


if __name__ == "__main__":
    main()
