"""Pages that mlock and madvise fault in: under mmap_lock, and under no area's lock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from emulator.hardware.operations import CmpxchgPte, Lock, LockVma
from emulator.hardware.pte import mmap_lock, pte_present
from emulator.kernel.madvise import do_madvise, madvise_populate_read, madvise_populate_write
from emulator.kernel.mlock import do_mlock
from emulator.kernel.mmap import do_munmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.kernel.userfaultfd import mwriteprotect_range, userfaultfd_register
from emulator.memory.memory import Memory
from tests.kernel.small_machine import HEAP, PAGES, SmallMachine, Thread, mark

END = HEAP + 2
Call = Callable[[PerCpu], Awaitable[bool]]


async def _mlock(cpu: PerCpu) -> bool:
    return await do_mlock(cpu, 1, HEAP, END)


async def _populate_read(cpu: PerCpu) -> bool:
    return await do_madvise(cpu, 1, HEAP, END, madvise_populate_read)


async def _populate_write(cpu: PerCpu) -> bool:
    return await do_madvise(cpu, 1, HEAP, END, madvise_populate_write)


class _Watched(Memory):
    """Notes how entries come to be: whether somebody could have locked mmap_lock for writing meanwhile."""

    installed: list[bool]
    area_locks = 0

    def execute(self, cpu: int, operation: Any) -> Any:
        if type(operation) is CmpxchgPte and HEAP <= operation.vpn < END:
            self.installed.append(self.enabled(1 - cpu, Lock(mmap_lock(1))))
        self.area_locks += type(operation) is LockVma
        return super().execute(cpu, operation)


def _watched(tiers: Any) -> Memory:
    memory = _Watched(tiers, fault_locks=True)
    memory.installed = []
    return memory


@pytest.mark.parametrize("version", ["6.1", "6.12"])
@pytest.mark.parametrize("call", [_mlock, _populate_read, _populate_write])
def test_its_faults_hold_mmap_lock(call: Call, version: str) -> None:
    async def body(cpu: PerCpu) -> None:
        assert await call(cpu)
        assert pte_present(machine.entry(HEAP)) and pte_present(machine.entry(END - 1))
        await mark("populated")

    machine = SmallMachine(Thread(0, body), memory=_watched, fault_locks=True, version=version)
    machine.drive(0, machine.marked("populated"))
    memory = machine.memory
    assert isinstance(memory, _Watched)
    assert memory.installed == [False, False] and not memory.area_locks
    assert not machine.run().violations


def test_who_waits_for_a_monitor_keeps_nobody_out_and_finds_another_area() -> None:
    async def populates(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        assert await userfaultfd_register(cpu, 1, HEAP, HEAP + PAGES)
        assert await mwriteprotect_range(cpu, 1, HEAP, END, True)
        await mark("protected")
        await _populate_write(cpu)

    async def unmaps(cpu: PerCpu) -> None:
        assert await do_munmap(cpu, 1, HEAP, END) == 1

    machine = SmallMachine(Thread(0, populates), Thread(1, unmaps), fault_locks=True)
    machine.drive(0, machine.marked("protected"))
    assert not machine.run().violations


def test_mlock_of_a_hole_faults_nothing_in() -> None:
    async def body(cpu: PerCpu) -> None:
        await do_munmap(cpu, 1, HEAP + 1, END)
        assert not await _mlock(cpu)
        assert not machine.entry(HEAP)

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations
