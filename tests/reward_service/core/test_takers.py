import threading
from collections.abc import Callable

from reward_service.core.takers import Takers

TIMEOUT_S = 20.0


class Rig:
    """Takers of numbers, each of which tells when it is awake."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.work: list[int] = []
        self.takers = Takers(self.lock, lambda: bool(self.work))
        self.woken: list[str] = []

    def wait(self, name: str, is_idle: Callable[[], bool]) -> threading.Thread:
        def run() -> None:
            with self.lock, self.takers.one_more(is_idle) as taker:
                taker.sleep()
                self.woken.append(name)
                if self.work:
                    self.work.pop()

        before = len(self.takers)
        thread = threading.Thread(target=run)
        thread.start()
        while not self.sleeping(before + 1):
            pass
        return thread

    def sleeping(self, count: int) -> bool:
        with self.lock:  # Whoever is there and does not hold it sleeps.
            return len(self.takers) == count

    def add(self, *work: int) -> None:
        with self.lock:
            self.work += work
            self.takers.wake_one()


def test_one_is_woken_for_one_piece_of_work_and_the_idle_first() -> None:
    rig = Rig()
    threads = {name: rig.wait(name, lambda name=name: name != "busy") for name in ("busy", "idle", "idle too")}  # type: ignore[misc]
    for names in (["idle"], ["idle", "idle too"], ["idle", "idle too", "busy"]):
        rig.add(1)
        threads[names[-1]].join(TIMEOUT_S)
        assert rig.woken == names


def test_who_leaves_something_wakes_the_next() -> None:
    rig = Rig()
    threads = [rig.wait(name, lambda: True) for name in "abc"]
    rig.add(1, 2)
    for thread in threads[:2]:
        thread.join(TIMEOUT_S)
    assert rig.woken == ["a", "b"]
    assert rig.sleeping(1)
    with rig.lock:
        rig.takers.wake_all()
    threads[2].join(TIMEOUT_S)
    assert rig.woken == ["a", "b", "c"]


def test_one_that_ends_otherwise_leaves_the_others_their_work() -> None:
    rig = Rig()
    thread = rig.wait("a", lambda: True)
    try:
        with rig.lock, rig.takers.one_more(lambda: True):
            rig.work.append(1)
            raise ValueError
    except ValueError:
        pass
    thread.join(TIMEOUT_S)
    assert rig.woken == ["a"]
