"""A CPU whose actor dies in user mode is unplugged, and the run goes on; elsewhere the run is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from actors.calls import Calls
from actors.errors import LostActor
from actors.mailbox import Directory, Endpoint
from actors.mode import Mode
from actors.session import LiveSession, register
from actors.unplugging import TolerantCalls
from emulator.hardware.operations import (
    AtomicAdd,
    AtomicAnd,
    DrainPages,
    Operation,
    SendIpi,
    WaitFor,
)
from emulator.kernel.boot import Thread
from emulator.kernel.cpu import takedown_cpu
from scenarios.subjects.subject import Subject
from scenarios.workloads.workload_file import load_workload
from tests.live.lab import Lab, LabMachine
from tests.live.shell import SMALL

register(sys.modules[__name__])

TOLERANT = Mode(tolerant=True)
PAGES = 4


def dying(first: int) -> Iterator[Sequence[int]]:
    """Accesses to a few pages, then again, which fault no more; in the middle of user mode the actor dies."""
    pages = [vpn << 1 for vpn in range(first, first + PAGES)]
    yield pages
    yield pages
    os.kill(os.getpid(), signal.SIGKILL)


class OneDies:
    """A workload, where the last CPU's threads do that."""

    def __init__(self, user: Any, last: int, first: int) -> None:
        self.user = user
        self.last = last
        self.first = first

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.user, name)

    def threads(self, cpu: int) -> list[Thread]:
        threads: list[Thread] = self.user.threads(cpu)
        if cpu != self.last:
            return threads
        return [one._replace(chunks=partial(dying, self.first)) for one in threads]


@pytest.mark.live
@pytest.mark.parametrize("policy", ["immediate", "migrc"])
def test_a_run_goes_on_without_a_cpu_that_died(session: LiveSession, policy: str) -> None:
    workload = load_workload("tiering", (*SMALL, "threads.accesses=4000"), live=True)
    machine = Subject(workload, policy, "x86", 3).workload_machine()
    (_, vmas), *_ = machine.user.areas().items()
    machine.user = OneDies(machine.user, 2, vmas[0].start)  # type: ignore[assignment]
    result = session.run(machine, mode=TOLERANT)
    assert (result.unplugged, result.violations) == ((2,), [])
    assert result.accesses == 2 * 4000 and len(result.cpus) == 2
    assert not session.run(Subject(workload, policy, "x86", 3).workload_machine()).unplugged


@pytest.mark.live
def test_a_cpu_that_died_in_the_kernel_is_lost(session: LiveSession) -> None:
    async def waits(lab: Lab) -> None:
        await WaitFor("done", 1)

    async def dies(lab: Lab) -> None:
        await AtomicAdd("word", 1)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LostActor, match="CPU 1 died; it was in the kernel, where none can be unplugged"):
        session.run(LabMachine([waits, dies]), mode=TOLERANT)
    with pytest.raises(LostActor, match="CPU 0 died; only a CPU other than 0 can be unplugged"):
        session.run(LabMachine([dies, waits]), mode=TOLERANT)


async def idle(lab: Lab) -> None:
    await SendIpi((), "", (), False)


def calls_of(cpus: int) -> tuple[Calls, Any, list[tuple[int, Any]]]:
    """Those of CPU 0, the CPU, and what it sends to whom."""

    cpu, program, _ = LabMachine([idle] * cpus).cpu(0)
    cpu.boot(program)
    sent: list[tuple[int, Any]] = []
    line: Any = SimpleNamespace(
        on={},
        since_ns=0,
        confirm=lambda: None,
        pack=lambda message: message,
        send=lambda cpu, message: sent.append((cpu, message)),
    )
    here = Endpoint("", b"", "")
    return TolerantCalls(cpu, line, Directory(here, here, (here,) * cpus)), cpu, sent


def test_who_waits_for_one_that_is_gone_is_acknowledged_once() -> None:
    calls, cpu, _ = calls_of(3)
    both = calls.send(SendIpi((1, 2), "flush", (), True))
    served = calls.send(SendIpi((1, 2), "flush", (), True))
    calls.acknowledged(served, 2)
    assert isinstance(calls, TolerantCalls)
    calls.arrived(2, 7, "flush", (), True, 0)
    calls.unplug(2, ())
    assert set(calls.unacknowledged) == {both, served}  # CPU 1 is there
    calls.acknowledged(both, 2)  # it had come when it was dead already
    calls.acknowledged(both, 1)
    calls.acknowledged(served, 1)
    assert not calls.unacknowledged
    assert [one.function for one in cpu.call_queue] == ["cpu_is_dead"]  # nobody is answered who is gone


def test_one_that_is_gone_is_not_called_any_more() -> None:
    calls, _, sent = calls_of(3)
    assert isinstance(calls, TolerantCalls)
    calls.unplug(2, ())
    calls.send(SendIpi((1, 2), "flush", (), True))
    assert [cpu for cpu, _ in sent] == [1]
    assert calls.send(SendIpi((2,), "flush", (), True)) not in calls.unacknowledged
    calls.send(SendIpi((2,), "scheduler_ipi", (1,), False))
    calls.send(SendIpi((2,), "scheduler_ipi", (-1,), False))
    assert len(sent) == 1  # a wake-up comes to CPU 0 itself, the end of CPU 2 to nobody


def test_what_one_cpu_does_for_all_when_another_is_gone() -> None:
    kernel = LabMachine([idle] * 3).kernel(0)
    program = takedown_cpu(kernel, (2, 1, 5, 6))
    done: list[Operation] = []
    with pytest.raises(StopIteration):
        while True:
            done.append(program.send(None))
    assert done == [
        AtomicAnd("mm_cpumask.5", ~0b100),
        AtomicAnd("mm_cpumask.6", ~0b100),
        DrainPages(0),
        AtomicAdd("kswapd_stopped", 1),
        AtomicAdd("threads_done", 1),
    ]
