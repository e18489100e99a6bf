"""SIGINT and SIGTERM mean the same to both programs, which may not share the code."""

import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import reward_service.training.interrupt
import rl_client.training.interrupt

pytestmark = pytest.mark.signals

LONG_S = sys.float_info.max


@pytest.fixture(
    params=[reward_service.training.interrupt, rl_client.training.interrupt], ids=lambda side: side.__name__
)
def side(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one of the two programs."""
    module: ModuleType = request.param
    return module


@pytest.fixture(autouse=True)
def fallback() -> Iterator[None]:
    """A SIGTERM that the code under test lets through fails the test instead of ending the process that runs it."""

    def refuse(number: int, frame: object) -> None:
        raise AssertionError("this SIGTERM would have ended the process")

    before = signal.signal(signal.SIGTERM, refuse)
    # Of a shell's background job SIGINT is ignored.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGINT, interrupt)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_its_echoes_too(
    side: ModuleType, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "SAME_SIGNAL_S", LONG_S)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with side.StopSignal() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        for echo in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(echo)
        assert stop.received is number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_later_interrupt_interrupts_and_a_later_sigterm_does_not(
    side: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "SAME_SIGNAL_S", -LONG_S)
    with side.StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_exit_status_is_the_same() -> None:
    assert reward_service.training.interrupt.EXIT_INTERRUPTED == rl_client.training.interrupt.EXIT_INTERRUPTED == 75


def test_the_services_training_asks_whether_to_stop() -> None:
    with reward_service.training.interrupt.StopSignal() as stop:
        assert not stop.is_received()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_received()
