"""What ends the command early reaches it."""

from __future__ import annotations

import gc
import signal
import sys
import time

import pytest

from actors.signals import Terminated, unwind
from emulator.hardware.operations import Load
from scenarios.verbs.exits import keep_interrupts

HANG_S = 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_garbage_is_collected_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    keep_interrupts()

    def interrupted(phase: str, _info: dict[str, int]) -> None:
        gc.callbacks.remove(interrupted)
        signal.raise_signal(number)

    deadline = time.monotonic() + HANG_S
    with pytest.raises(Terminated) as caught, unwind():
        gc.callbacks.append(interrupted)
        gc.collect()
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert caught.value.code == 128 + number


async def interrupted_when_dropped() -> None:
    try:
        await Load("word")
    finally:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_a_program_is_dropped_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    keep_interrupts()
    program = interrupted_when_dropped()
    program.send(None)
    deadline = time.monotonic() + HANG_S
    with pytest.raises(KeyboardInterrupt):
        del program
        while time.monotonic() < deadline:
            time.sleep(0.01)
