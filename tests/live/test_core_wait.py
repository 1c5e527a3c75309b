"""What of a latency was waiting for a core: as the scheduler counts it, and put together by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from actors import calls
from actors.core_wait import CoreWait, shares
from actors.mailbox import Directory, Endpoint
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import AckIpi, SendIpi
from tests.live.lab import LabMachine
from tests.live.shell import HANG_S


def test_a_thread_that_shares_its_core_waits_for_it() -> None:
    core = CoreWait()
    if not core.known:
        pytest.skip("this system does not tell")
    cores = os.sched_getaffinity(0)
    busy = f"import os; os.sched_setaffinity(0, {{{min(cores)}}})\nwhile True: pass"
    os.sched_setaffinity(0, {min(cores)})
    with subprocess.Popen([sys.executable, "-c", busy]) as other:
        try:
            before, deadline = core.ns(), time.monotonic() + HANG_S
            while core.ns() == before:
                assert time.monotonic() < deadline
        finally:
            os.sched_setaffinity(0, cores)
            other.kill()
    core.close()
    assert core.ns() == 0


class Clocks:
    """The time and what the scheduler says, both told by the test, in ns."""

    known = True

    def __init__(self) -> None:
        self.now = self.waited = 0

    def ns(self) -> int:
        return self.waited

    def close(self) -> None: ...


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(calls, "CoreWait", lambda: clocks)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic_ns=lambda: clocks.now))
    return clocks


def called(clocks: Clocks) -> tuple[calls.Calls, Cpu, Any, Any, list[Any]]:
    """CPU 1's calls, the CPU, its kernel and line, and what it sends."""

    async def idle(lab: Any) -> None:
        await SendIpi((), "", (), False)

    cpu, program, kernel = LabMachine([idle, idle]).cpu(1)
    cpu.boot(program)
    sent: list[Any] = []
    line: Any = SimpleNamespace(
        on={}, since_ns=0, confirm=lambda: None, pack=lambda m: m, send=lambda c, m: sent.append(m)
    )
    here = Endpoint("", b"", "")
    return calls.Calls(cpu, line, Directory(here, here, (here, here))), cpu, kernel, line, sent


def test_a_call_that_a_sleeping_cpu_finds_late_has_waited_all_the_time(clocks: Clocks) -> None:
    ours, _, kernel, line, sent = called(clocks)
    line.since_ns, clocks.now, clocks.waited = 100, 400, 7
    ours.arrived(0, 1, "flush", (), True, 150)  # sent while this CPU was in recv, found 250 later
    clocks.now, clocks.waited = 500, 27  # 20 of these 100 without a core
    ours.enter()
    clocks.now, clocks.waited = 800, 57
    ours.acknowledge(AckIpi(0, 1))
    clocks.now, clocks.waited = 900, 87
    ours.returned()
    assert sent == [(4, 1, 1, 250 + 20 + 30)]
    spans = ours.report(kernel).core_wait
    assert spans == {"delivery": (350, 270), "handler": (400, 60), "round_trip": (0, 0)}


def test_a_call_that_came_while_a_cpu_computed_has_waited_as_the_scheduler_says(clocks: Clocks) -> None:
    ours, _, kernel, line, _ = called(clocks)
    clocks.now, clocks.waited = 50, 10
    ours.look()
    line.since_ns, clocks.now, clocks.waited = 300, 300, 40
    ours.arrived(0, 1, "flush", (), True, 200)
    ours.enter()
    ours.returned()
    assert ours.report(kernel).core_wait["delivery"] == (100, 30)


def test_a_round_trip_waits_with_its_sender_and_the_last_to_acknowledge(clocks: Clocks) -> None:
    ours, _, kernel, _, _ = called(clocks)
    clocks.now, clocks.waited = 1_000, 5
    request = ours.send(SendIpi((0,), "flush", (), True))
    clocks.now, clocks.waited = 2_000, 105
    ours.acknowledged(request, 0, 300)
    assert ours.report(kernel).core_wait["round_trip"] == (1_000, 400)


def test_shares_are_of_all_spans_together() -> None:
    assert shares([{"handler": (100, 50), "delivery": (0, 0)}, {"handler": (300, 50)}, {}]) == {
        "handler": 0.25
    }
