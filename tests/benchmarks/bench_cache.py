"""How much faster the service answers what it has scored before.

Round after round the same service gets new texts and then the same again: the ratio of the two durations is printed for
requests of 1, 16 and 256 items; the scores are found in memory or, with `--disk`, in the file alone. Every reply that
was found must be the computed one. The duration of `GET /healthz`, which does nothing, tells what HTTP alone costs.

    python tests/benchmarks/bench_cache.py [--store STORE --model NAME] [--rounds 5] [--disk]

Without a store it takes MiniLM, as bench_service.py does.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))
from bench_service import make_bodies, make_texts, publish_minilm, start_service

LOADS = (1, 16, 256)
REPEATS = 20
"""Hits are timed so often for each request, being short."""


def seconds_of(connection: http.client.HTTPConnection, path: str, body: bytes | None) -> tuple[float, bytes]:
    """How long a request took, and its reply."""
    begin_s = time.perf_counter()
    connection.request("GET" if body is None else "POST", path, body)
    reply = connection.getresponse()
    content = reply.read()
    spent_s = time.perf_counter() - begin_s
    assert reply.status == 200, content
    return spent_s, content


def without_mark(reply: bytes, cached: bool) -> list[object]:
    """The scores of a reply, all of which must have been computed, or found."""
    results = json.loads(reply)["results"]
    for result in results:
        for score in result["scores"].values():
            assert score.pop("cached") is cached
    return results  # type: ignore[no-any-return]


def measure(
    connection: http.client.HTTPConnection, model: str, items: int, rounds: int, seed: int
) -> tuple[float, float]:
    """Medians of the seconds that computing and finding the same items took."""
    computed_s, found_s = [], []
    for number in range(rounds):
        texts = make_texts(items, seed=seed + number)
        (body,) = make_bodies(model, texts, items)
        spent_s, computed = seconds_of(connection, "/v1/score", body)
        computed_s.append(spent_s)
        while b'"cached":false' in seconds_of(connection, "/v1/score", body)[1]:
            pass  # It is written behind the reply.
        for _ in range(REPEATS):
            spent_s, found = seconds_of(connection, "/v1/score", body)
            found_s.append(spent_s)
            assert without_mark(found, True) == without_mark(computed, False)
    return statistics.median(computed_s), statistics.median(found_s)


def compare(connection: http.client.HTTPConnection, wanted: argparse.Namespace) -> None:
    """Print the table."""
    measure(connection, wanted.model, 4, 3, seed=10**6)  # The first requests of a process are slower.
    floor_s = statistics.median(seconds_of(connection, "/healthz", None)[0] for _ in range(50))
    print(f"GET /healthz: {1000 * floor_s:.2f} ms")
    for place, items in enumerate(LOADS):
        if items > wanted.largest:
            continue
        rounds = wanted.rounds if items < LOADS[-1] else 1
        computed_s, found_s = measure(connection, wanted.model, items, rounds, seed=1000 * place)
        print(
            f"{items} items: computed in {1000 * computed_s:.1f} ms, found in {1000 * found_s:.2f} ms,"
            f" {computed_s / found_s:.0f} times as fast"
        )


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=256)
    parser.add_argument("--disk", action="store_true", help="find on disk alone: nothing is kept in memory")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if wanted.store is None:
            wanted.store = folder / "store"
            publish_minilm(wanted.store, wanted.model, folder)
        cache = {"memory_bytes": 0, "path": str(folder / "scores.db")} if wanted.disk else {"memory_bytes": 10**9}
        process, url = start_service(wanted.store, wanted.model, {"threads": wanted.threads}, folder, cache)
        try:
            with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)) as connection:
                compare(connection, wanted)
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
