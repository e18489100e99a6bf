import signal
import sys
from collections.abc import Iterator

import pytest

from rl_client.training import interrupt
from rl_client.training.interrupt import StopSignal

pytestmark = pytest.mark.signals

LONG_S = sys.float_info.max


@pytest.fixture(autouse=True)
def fallback() -> Iterator[None]:
    """A SIGTERM that the code under test lets through fails the test instead of ending the process that runs it."""

    def refuse(number: int, frame: object) -> None:
        raise AssertionError("this SIGTERM would have ended the process")

    before = signal.signal(signal.SIGTERM, refuse)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_its_echoes_too(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_S", LONG_S)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert stop.received is None
        signal.raise_signal(number)
        for echo in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(echo)
        assert stop.received is number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_later_interrupt_interrupts_and_a_later_sigterm_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_S", -LONG_S)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
