"""Locks of areas: who waits for whom, and what splitting an area makes of them."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import (
    DownRead,
    Lock,
    LockVma,
    ReleaseFaultLock,
    Unlock,
    UpRead,
    VmaEndWriteAll,
    VmaInsert,
    VmaRemove,
    VmaStartWrite,
)
from emulator.hardware.pte import mmap_lock
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ
from emulator.memory.zone import Watermarks

MMAP = mmap_lock(1)


@pytest.fixture
def memory() -> Memory:
    made = Memory((Tier(4, Watermarks(0, 0, 0)),), fault_locks=True)
    for start in (0x10, 0x20):
        assert made.execute(0, VmaInsert(1, start, start + 4, VM_READ, 0, 0))
    return made


def test_a_writer_waits_for_faults_in_its_range_and_for_no_others(memory: Memory) -> None:
    assert memory.execute(1, LockVma(1, 0x11, False))[:2] == (0x10, 0x14)
    assert memory.execute(2, LockVma(1, 0x12, False))[:2] == (0x10, 0x14)
    memory.execute(0, Lock(MMAP))
    assert memory.execute(0, VmaStartWrite(1, 0x20, 0x24)) == (0x20,)
    wanted = VmaStartWrite(1, 0x13, 0x14)
    assert memory.execute(0, wanted) is BLOCKED
    memory.execute(1, ReleaseFaultLock(1, 0x10, False))
    assert not memory.enabled(0, wanted)
    memory.execute(2, ReleaseFaultLock(1, 0x10, False))
    assert memory.enabled(0, wanted)
    assert memory.execute(0, wanted) == (0x10, 0x13)
    with pytest.raises(RuntimeError):
        memory.execute(1, ReleaseFaultLock(1, 0x10, False))


def test_a_fault_waits_for_the_writer_and_what_splitting_leaves_stays_locked(memory: Memory) -> None:
    memory.execute(0, Lock(MMAP))
    starts = memory.execute(0, VmaStartWrite(1, 0x11, 0x12))
    assert starts == (0x10, 0x11, 0x12)
    memory.execute(0, VmaRemove(1, 0x11, 0x12))
    for vpn in (0x10, 0x11, 0x12):
        assert memory.execute(1, LockVma(1, vpn, False)) is BLOCKED
        assert not memory.enabled(1, LockVma(1, vpn, False))
    # Another area is no matter of this writer's; where there is none, only mmap_lock can tell.
    assert memory.execute(1, LockVma(1, 0x20, False))
    memory.execute(0, VmaEndWriteAll(1, starts))
    assert memory.execute(1, LockVma(1, 0x10, False))
    assert memory.execute(1, LockVma(1, 0x11, False)) is BLOCKED
    memory.execute(0, Unlock(MMAP))
    assert memory.execute(1, LockVma(1, 0x11, False)) == ()


def test_before_v6_4_it_is_one_lock_for_all(memory: Memory) -> None:
    memory.execute(2, DownRead(MMAP))
    assert memory.execute(1, LockVma(1, 0x10, True))
    memory.execute(2, UpRead(MMAP))
    assert not memory.enabled(0, Lock(MMAP))
    memory.execute(1, ReleaseFaultLock(1, 0x10, True))
    assert memory.execute(0, Lock(MMAP)) is None
    assert memory.execute(1, LockVma(1, 0x20, True)) is BLOCKED
