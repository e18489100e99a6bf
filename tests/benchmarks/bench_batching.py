"""What it gains that batches take more padding where another batch is measured to cost more.

The service's queue and cost model against devices that are simulated: a batch takes a seconds for each padded token and
b beside them, both somewhat at random, in time that is only counted. Items a second with what was learned in use, as a
share of those with `batching.max_padding` alone.

    python tests/benchmarks/bench_batching.py [--data FILE] [--max-batch-tokens 65536]

`--data` is a file of QA-Feedback's format, whose answers' words are counted; without it answers are made up.
"""

import argparse
import heapq
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench_service import make_texts, read_texts
from rich.console import Console
from rich.table import Table

from reward_service.core.cost_model import CostModel
from reward_service.core.token_queue import TokenQueue

DEVICES = {
    "GPU, large model, 20 us and 5 ms": (20e-6, 5e-3),
    "GPU, 5 us and 5 ms": (5e-6, 5e-3),
    "GPU, small model, 1 us and 5 ms": (1e-6, 5e-3),
}
LOADS = ((8, 16), (32, 1), (8, 64))
ITEMS = 1400
TOKENS_A_WORD = 1.3
NOISE = 0.05
CALLER_S = 1e-3
"""From a reply to the same caller's next request."""


@dataclass
class Item:
    """One input that waits."""

    length_tokens: int
    request: int
    job: str = ""

    def is_abandoned(self, now_s: float) -> bool:
        """Never."""
        return False


def items_a_second(
    lengths: list[int], device: tuple[float, float], load: tuple[int, int], max_batch_tokens: int, *, is_learned: bool
) -> float:
    """Run all the inputs: so many callers, each with so many items a request."""
    token_s, batch_s = device
    callers, together = load
    rng = random.Random(0)
    now_s = 0.0
    queue: TokenQueue[Item] = TokenQueue(
        max_items=10**6, max_tokens=10**9, max_batch_tokens=max_batch_tokens, max_padding=0.05, clock=lambda: now_s
    )
    requests = [lengths[begin : begin + together] for begin in range(0, len(lengths), together)]
    arrivals = [(0.0, number) for number in range(callers)]
    following = callers
    left: Counter[int] = Counter()
    cost = CostModel()
    while arrivals or queue.items:
        while arrivals and (arrivals[0][0] <= now_s or not queue.items):
            at_s, number = heapq.heappop(arrivals)
            now_s = max(now_s, at_s)
            left[number] = len(requests[number])
            queue.put([Item(length, number) for length in requests[number]])
        batch = queue.take()
        padded = batch[0].length_tokens * len(batch)
        real = sum(item.length_tokens for item in batch)
        took_s = (token_s * padded + batch_s) * (1 + rng.gauss(0, NOISE)) + rng.expovariate(5 / batch_s)
        now_s += took_s
        cost.observe(items=len(batch), real_tokens=real, padded_tokens=padded, duration_s=took_s)
        if is_learned:
            queue.overhead_tokens = cost.cost.overhead_tokens
        for item in batch:
            left[item.request] -= 1
            if not left[item.request] and following < len(requests):
                heapq.heappush(arrivals, (now_s + CALLER_S, following))
                following += 1
    return len(lengths) / now_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--max-batch-tokens", type=int, default=65536)
    wanted = parser.parse_args()
    texts = make_texts(ITEMS, seed=0) if wanted.data is None else read_texts(wanted.data, ITEMS)
    lengths = [max(1, round(TOKENS_A_WORD * len(text.split()))) for text in texts]
    table = Table("device", *(f"{callers} x {together}" for callers, together in LOADS))
    for name, device in DEVICES.items():
        ratios = []
        for load in LOADS:
            fixed, learned = (
                items_a_second(lengths, device, load, wanted.max_batch_tokens, is_learned=is_learned)
                for is_learned in (False, True)
            )
            ratios.append(f"{learned / fixed:.2f}")
        table.add_row(name, *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
