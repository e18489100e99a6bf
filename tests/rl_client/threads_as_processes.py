"""Threads in the place of processes, for what is exchanged and not for gradients: quick, and in one interpreter."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from rl_client.training.processes import Processes

T = TypeVar("T")
TIMEOUT_S = 60.0


class Thread(Processes):
    """One of several that share a table and meet at it."""

    def __init__(self, rank: int, table: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(torch.device("cpu"), rank=rank, count=len(table))
        self._table, self._barrier = table, barrier

    def _gather(self, value: Any) -> list[Any]:
        self._table[self.rank] = value
        self._barrier.wait(TIMEOUT_S)
        everyone = list(self._table)
        self._barrier.wait(TIMEOUT_S)
        return everyone


def run_threads(count: int, work: Callable[[Thread], T]) -> list[T | Exception]:
    """What the work gives, or the error it ends with, for each."""
    table, barrier = [None] * count, threading.Barrier(count)

    def run(rank: int) -> T | Exception:
        try:
            return work(Thread(rank, table, barrier))
        except Exception as error:  # noqa: BLE001 - given to the test
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
