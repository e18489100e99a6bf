"""How several jobs share one service, and what it does with ten times the load that it can carry.

One `reward-service serve` in a process of its own, this one as the load generator, everything on loopback:

- flood: latency of a light job (one item at a time) alone, and beside a job that keeps 64 requests of 64 items waiting;
- shares: padded tokens computed for three jobs of different lengths that always have items waiting, of equal weights
  and of weights 1 : 2 : 4;
- overload: ten times as many items a second as the service carries, each request with a deadline.

    python tests/benchmarks/bench_fairness.py [--store STORE --model NAME] [--threads 2] [--seconds 20] [--only flood]

Without a store it takes MiniLM, as bench_service.py does.
"""

import argparse
import asyncio
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from bench_service import QUESTION, make_texts, publish_minilm
from serving import serve

WEIGHTS = {"w1": 1, "w2": 2, "w4": 4}
EQUAL = ("a", "b", "c")
LIGHT_PAUSE_S = 0.05
CLIENTS_OF_A_JOB = 16
OVERLOAD = 10
OVERLOAD_ITEMS = 16
"""With fewer, so many requests a second come that the load generator itself has no time to read the replies."""
DEADLINE_S = 2.0
SETTLE_S = 3.0
"""Load that runs before a measurement begins."""


class Service:
    """A running service, and one client of it."""

    def __init__(self, wanted: argparse.Namespace, folder: Path) -> None:
        self.model = wanted.model
        settings = {
            "store": str(wanted.store.resolve()),
            "models": [{"name": wanted.model, "runtime": "onnxruntime"}],
            "batching": {"threads": wanted.threads},
            "fairness": {"jobs": {job: {"weight": weight} for job, weight in WEIGHTS.items()}},
            "cache": {"memory_bytes": 0},
        }
        self.process, self.url = serve(settings, folder)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=120, limits=httpx.Limits(max_connections=None))

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]

    async def ask(self, http: httpx.AsyncClient, texts: list[str], job: str, **more: Any) -> httpx.Response:
        items = [{"prompt": QUESTION, "response": text, "fields": {"question": QUESTION}} for text in texts]
        body = {"items": items, "models": [self.model], **more}
        return await http.post("/v1/score", json=body, headers={"X-Client-Job": job})


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def scores_of(reply: httpx.Response, model: str) -> list[float | None]:
    return [result["scores"][model]["sequence_score"] for result in reply.json()["results"]]


async def light(service: Service, http: httpx.AsyncClient, texts: list[str], seconds: float) -> list[float]:
    """Latencies of a job that asks for one item, waits for it, and pauses."""
    latencies_s = []
    end_s = time.monotonic() + seconds
    rng = random.Random(0)
    while time.monotonic() < end_s:
        begin_s = time.monotonic()
        (await service.ask(http, [rng.choice(texts)], "light")).raise_for_status()
        latencies_s.append(time.monotonic() - begin_s)
        await asyncio.sleep(LIGHT_PAUSE_S)
    return latencies_s


async def flood(service: Service, texts: list[str], seconds: float) -> None:
    async with service.client() as http, service.client() as flooding:
        await light(service, http, texts, SETTLE_S)
        alone = await light(service, http, texts, seconds)

        async def one() -> None:
            rng = random.Random()
            while True:
                reply = await service.ask(flooding, rng.choices(texts, k=64), "flood")
                if reply.status_code not in (200, 503):
                    raise RuntimeError(reply.text)

        tasks = [asyncio.create_task(one()) for _ in range(64)]
        await asyncio.sleep(SETTLE_S)
        beside = await light(service, http, texts, seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for name, found in (("alone", alone), ("beside the flood", beside)):
        print(
            f"light job {name}: {len(found)} items, median {1000 * statistics.median(found):.0f} ms,"
            f" p99 {1000 * p99(found):.0f} ms"
        )
    print(f"ratio of the p99: {p99(beside) / p99(alone):.2f}, of the medians:", end=" ")
    print(f"{statistics.median(beside) / statistics.median(alone):.2f}")


async def shares(service: Service, texts: list[str], jobs: tuple[str, ...], seconds: float) -> None:
    """The jobs' texts are of different lengths: the shortest third, the middle one, the longest."""
    by_length = sorted(texts, key=len)
    third = len(texts) // 3
    used: Counter[str] = Counter()
    counting = False

    async with service.client() as http:

        async def one(job: str, own: list[str]) -> None:
            rng = random.Random()
            while True:
                reply = await service.ask(http, [rng.choice(own)], job)
                reply.raise_for_status()
                if counting:
                    used[job] += reply.json()["usage"]["padded_tokens"]

        tasks = [
            asyncio.create_task(one(job, by_length[place * third : (place + 1) * third]))
            for place, job in enumerate(jobs)
            for _ in range(CLIENTS_OF_A_JOB)
        ]
        await asyncio.sleep(SETTLE_S)
        counting = True
        await asyncio.sleep(seconds)
        counting = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    total_weight = sum(WEIGHTS.get(job, 1) for job in jobs)
    for job in jobs:
        share, due = used[job] / sum(used.values()), WEIGHTS.get(job, 1) / total_weight
        print(f"job {job}: {used[job]} padded tokens, share {share:.4f}, due {due:.4f}, off by {share / due - 1:+.1%}")


async def overload(service: Service, texts: list[str], seconds: float) -> None:
    texts = texts[:64]
    async with service.client() as http:
        known = dict(zip(texts, scores_of(await service.ask(http, texts, "known"), service.model), strict=True))
        begin_s = time.monotonic()
        await asyncio.gather(*(service.ask(http, texts, "known") for _ in range(3)))
        capacity = 3 * len(texts) / (time.monotonic() - begin_s)
        rate = OVERLOAD * capacity / OVERLOAD_ITEMS
        outcomes: Counter[str] = Counter()
        latencies_s: list[float] = []

        async def one(number: int) -> None:
            rng = random.Random(number)
            asked = rng.choices(texts, k=OVERLOAD_ITEMS)
            begin_s = time.monotonic()
            reply = await service.ask(http, asked, f"job {number % 5}", timeout_s=DEADLINE_S)
            took_s = time.monotonic() - begin_s
            if reply.status_code != 200:
                code = reply.json()["error"]["code"]
                has_wait = int(reply.headers.get("Retry-After", 0)) >= 1
                outcomes[f"{reply.status_code} {code}{'' if has_wait else ' without Retry-After'}"] += 1
                return
            latencies_s.append(took_s)
            found = scores_of(reply, service.model)
            wrong = any(
                score is not None and abs(score - known[t]) > 1e-4 for t, score in zip(asked, found, strict=True)
            )
            outcomes["200 wrong" if wrong else "200 in part" if None in found else "200"] += 1

        before_mb = service.rss_mb()
        tasks = []
        begin_s = time.monotonic()
        while (now_s := time.monotonic() - begin_s) < seconds:
            tasks += [asyncio.create_task(one(number)) for number in range(len(tasks), int(now_s * rate))]
            await asyncio.sleep(0.01)
        peak_mb = service.rss_mb()
        await asyncio.gather(*tasks)
        begin_s = time.monotonic()
        after = await service.ask(http, texts[:1], "after")
        took_ms = 1000 * (time.monotonic() - begin_s)
    print(
        f"capacity {capacity:.1f} items/s; sent {len(tasks) * OVERLOAD_ITEMS / seconds:.0f} items/s for {seconds:g} s"
    )
    print(", ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items())))
    print(f"admitted: median {statistics.median(latencies_s):.2f} s, p99 {p99(latencies_s):.2f} s of {DEADLINE_S} s")
    print(f"memory {before_mb:.0f} -> {peak_mb:.0f} -> {service.rss_mb():.0f} MB")
    print(f"first request afterwards: {after.status_code} in {took_ms:.0f} ms")


def main() -> None:
    """Run the scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=("flood", "equal", "weights", "overload"))
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if wanted.store is None:
            wanted.store = Path(folder) / "store"
            publish_minilm(wanted.store, wanted.model, Path(folder))
        service = Service(wanted, Path(folder))
        texts = make_texts(192, seed=0)
        scenarios = {
            "flood": lambda: flood(service, texts, wanted.seconds),
            "equal": lambda: shares(service, texts, EQUAL, wanted.seconds),
            "weights": lambda: shares(service, texts, tuple(WEIGHTS), wanted.seconds),
            "overload": lambda: overload(service, texts, wanted.seconds),
        }
        try:
            for name, scenario in scenarios.items():
                if wanted.only in (None, name):
                    print(f"-- {name}")
                    asyncio.run(scenario())
        finally:
            service.process.terminate()
            service.process.wait(60)


if __name__ == "__main__":
    main()
