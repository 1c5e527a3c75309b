"""A lock that several may read under, or one may have alone."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import DowngradeWrite, DownRead, Lock, Unlock, UpRead
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks


@pytest.fixture
def memory() -> Memory:
    return Memory((Tier(4, Watermarks(0, 0, 0)),))


def test_readers_go_together_and_a_writer_waits_for_all(memory: Memory) -> None:
    for cpu in (0, 1):
        assert memory.enabled(cpu, DownRead("a"))
        memory.execute(cpu, DownRead("a"))
    for _ in range(2):
        assert not memory.enabled(2, Lock("a"))
        assert memory.execute(2, Lock("a")) is BLOCKED
        memory.execute(0, UpRead("a"))
    assert memory.enabled(2, Lock("a"))
    memory.execute(2, Lock("a"))
    assert not memory.enabled(0, DownRead("a"))
    assert memory.execute(0, DownRead("a")) is BLOCKED
    memory.execute(2, Unlock("a"))
    assert memory.words.state() == Memory((Tier(4, Watermarks(0, 0, 0)),)).words.state()


def test_who_reads_does_not_unlock_and_who_writes_does_not_stop_reading(memory: Memory) -> None:
    memory.execute(0, DownRead("a"))
    with pytest.raises(RuntimeError, match="unlock of a, which is not locked"):
        memory.execute(0, Unlock("a"))
    memory.execute(0, Lock("b"))
    with pytest.raises(RuntimeError, match="up_read of b, which nobody reads under"):
        memory.execute(0, UpRead("b"))
    with pytest.raises(RuntimeError, match="up_read of c"):
        memory.execute(0, UpRead("c"))


def test_a_writer_becomes_one_of_the_readers(memory: Memory) -> None:
    with pytest.raises(RuntimeError, match="downgrade_write of a, which is not locked"):
        memory.execute(0, DowngradeWrite("a"))
    memory.execute(0, Lock("a"))
    assert not memory.enabled(1, DownRead("a"))
    memory.execute(0, DowngradeWrite("a"))
    memory.execute(1, DownRead("a"))
    memory.execute(0, UpRead("a"))
    assert not memory.enabled(2, Lock("a"))
    memory.execute(1, UpRead("a"))
    assert memory.enabled(2, Lock("a"))


def test_who_holds_it_survives_going_back(memory: Memory) -> None:
    memory.execute(0, DownRead("a"))
    state = memory.state()
    memory.execute(1, DownRead("a"))
    assert memory.state() != state
    memory.restore(state)
    memory.execute(0, UpRead("a"))
    assert memory.enabled(1, Lock("a"))
