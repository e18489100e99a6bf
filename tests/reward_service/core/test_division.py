from collections.abc import Sequence

from reward_proto.models import ModelKind
from reward_service.backends.fake_backend import FakeBackend
from reward_service.core.backend import Backend, divide
from reward_service.core.division import Division
from reward_service.domain import Head

HEAD = Head(ModelKind.SEQUENCE_REGRESSION)


class Closable(FakeBackend):
    def __init__(self) -> None:
        super().__init__(HEAD)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Divisible(Closable):
    def __init__(self, lanes: Sequence[Backend]) -> None:
        super().__init__()
        self._lanes = lanes

    def lanes(self) -> Sequence[Backend]:
        return self._lanes


def test_the_whole_runs_only_what_is_alone_while_no_lane_runs() -> None:
    one, two = Closable(), Closable()
    division = Division(whole := Divisible([one, two]))
    assert division.lanes == (one, two)
    with division.turn(one, is_alone=True) as first, division.turn(two, is_alone=True) as second:
        assert first == (whole, 2)
        assert second == (two, 1)
    with division.turn(one, is_alone=False) as third:
        assert third == (one, 1)
        with division.turn(two, is_alone=True) as fourth:
            assert fourth == (two, 1)
    with division.turn(two, is_alone=True) as fifth:
        assert fifth == (whole, 2)


def test_a_failed_inference_ends_its_turn() -> None:
    one, two = Closable(), Closable()
    division = Division(whole := Divisible([one, two]))
    try:
        with division.turn(one, is_alone=False):
            raise ValueError
    except ValueError:
        pass
    with division.turn(one, is_alone=True) as again:
        assert again == (whole, 2)


def test_what_is_not_divided_is_its_own_lane() -> None:
    for whole in (Closable(), Divisible([])):
        division = Division(whole)
        for is_alone in (True, False):
            with division.turn(whole, is_alone=is_alone) as turn:
                assert turn == (whole, 1)
        division.close()
        assert whole.closed == 1


def test_the_whole_and_every_lane_are_closed() -> None:
    one, two = Closable(), Closable()
    Division(whole := Divisible([one, two])).close()
    assert (whole.closed, one.closed, two.closed) == (1, 1, 1)


def test_lanes_use_the_threads_that_there_are() -> None:
    divided = {threads: divide(threads) for threads in range(1, 10)}
    assert divided[1] == (1, 1)
    assert divided[2] == (2, 1)
    assert divided[3] == (3, 1)
    assert divided[8] == (2, 4)
    assert all(lanes * each <= threads < lanes * each + 2 for threads, (lanes, each) in divided.items())
