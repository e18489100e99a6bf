import signal

import pytest

from reward_service.training import interrupt
from reward_service.training.interrupt import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_its_echo_too(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.is_received()
        signal.raise_signal(number)
        assert stop.is_received()
        signal.raise_signal(signal.SIGTERM)  # A launcher passes on what its processes have had already.
        assert stop.received is number
    assert signal.getsignal(number) is before


def test_a_later_one_acts_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_SIGNAL_S", -1.0)
    with StopSignal():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
