"""The thread that writes behind: what it tells of faults, and how it ends."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from reward_service.write_behind import WriteBehind

TIMEOUT_S = 20.0
logger = logging.getLogger("tests.write_behind")


class Numbers(WriteBehind):
    """Writes numbers into a list, while its gate is open."""

    def __init__(self) -> None:
        super().__init__("numbers", place="100% of it", cost="it is a pity", known_faults=(OSError,), log=logger)
        self.gate = threading.Event()
        self.written: list[int] = []
        self._waiting: list[int] = []
        self._start()

    def put(self, number: int) -> None:
        with self._changed:
            self._waiting.append(number)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        return self._stop(timeout_s)

    def fail(self, error: Exception) -> None:
        try:
            raise error
        except (OSError, KeyError) as failure:
            self._fault(failure, failure)

    def work(self) -> None:
        self._success()

    def _is_done(self) -> bool:
        return not self._waiting

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting)
                if not self._waiting:
                    return
            assert self.gate.wait(TIMEOUT_S)
            with self._changed:
                self.written.append(self._waiting.pop(0))
                self._changed.notify_all()


@pytest.fixture
def numbers() -> Iterator[Numbers]:
    made = Numbers()
    yield made
    made.gate.set()
    made.close(TIMEOUT_S)


def test_what_waits_is_waited_for_no_longer_than_allowed(numbers: Numbers) -> None:
    assert numbers.flush(0.0), "nothing waits"
    numbers.put(1)
    assert not numbers.flush(0.0)
    numbers.gate.set()
    assert numbers.flush(TIMEOUT_S)
    assert numbers.written == [1]


def test_an_end_writes_what_waits_and_comes_once(numbers: Numbers) -> None:
    for number in range(5):
        numbers.put(number)
    numbers.gate.set()
    assert numbers.close(TIMEOUT_S)
    assert numbers.written == [0, 1, 2, 3, 4]
    assert not numbers.close(TIMEOUT_S)


@pytest.mark.parametrize(("make", "is_traced"), [(lambda: OSError("gone"), False), (lambda: KeyError("gone"), True)])
def test_a_row_of_faults_is_told_once_and_so_is_its_end(
    numbers: Numbers, make: Callable[[], Exception], is_traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        numbers.work()
        for _ in range(3):
            numbers.fail(make())
            assert not numbers.works
        for _ in range(2):
            numbers.work()
            assert numbers.works
        numbers.fail(make())
    error = str(make())
    assert [record.message for record in caplog.records] == [
        f"100% of it fails; it is a pity: {error}",
        "100% of it works again",
        f"100% of it fails; it is a pity: {error}",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [is_traced, False, is_traced]
