"""fork: what the child maps is what the parent had then, whatever the parent's other threads have cached."""

from __future__ import annotations

from emulator.hardware.operations import SmpMb, Store, WaitFor
from emulator.kernel.fork import dup_mmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.litmus.steps import (
    DEFERRED,
    PAGE,
    RECEIVED,
    STALE,
    VERSION,
    move,
    mover,
    never,
    read,
    sometimes,
)

CHILD = 2
FORKED = "litmus.forked"
MOVED = "litmus.moved"
COPIED = "pgcow"
CHILD_READ = "litmus_child_read"
ENTRY_COPIED = "fork_migration_entries"
CONTENT = "the child sees the parent's writes"


def _child(setup: Setup) -> None:
    setup.area(PAGE, 1)
    # It is empty until the fork; its CPU waits.
    setup.load(2, CHILD)


def _written_page(setup: Setup) -> None:
    _child(setup)
    setup.page(PAGE, writable=True, dirty=True, version=VERSION)
    setup.cache(0, PAGE)
    setup.cache(1, PAGE)


def _read_only_page(setup: Setup) -> None:
    _child(setup)
    setup.page(PAGE, version=VERSION)
    setup.cache(0, PAGE)
    setup.cache(1, PAGE)


async def _fork(cpu: PerCpu) -> None:
    await dup_mmap(cpu, MM, CHILD, ((PAGE, PAGE + 1),))
    # What waking a task orders, and being woken below (kernel/sched/core.c: try_to_wake_up, schedule).
    await SmpMb()
    await Store(FORKED, 1)


async def _child_reads(cpu: PerCpu, *allowed: int) -> None:
    await WaitFor(FORKED, 1)
    await SmpMb()
    first = await user_read(cpu, PAGE)
    second = await user_read(cpu, PAGE)
    if first != second or first not in allowed:
        raise Forbidden(CONTENT, f"it read version {first}, then {second}")
    cpu.count(CHILD_READ)


async def _forks(cpu: PerCpu) -> None:
    await _fork(cpu)
    await user_write(cpu, PAGE, 11)


async def _writes(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 12)


async def _reads_either(cpu: PerCpu) -> None:
    await _child_reads(cpu, VERSION, 12)


# CPU 0 forks                       CPU 1 has the page writable   CPU 2 is the child
# both entries read-only
#                                   write 12, without a fault:
#                                   the child does not run yet
# IPI, wait
#                                   handle it
# fork is done
#                                                                 read: 7 or 12, and so it stays
# write 11: fault, copy
#                                   write: fault, as CPU 0
FORK_WRITE = Litmus(
    name="fork-write",
    question="After fork another thread writes through what it has cached: does the child see it?",
    programs=(_forks, _writes, _reads_either),
    setup=_written_page,
    expected=(
        never("immediate", RECEIVED, COPIED, CHILD_READ),
        never("migrc:v3", RECEIVED, COPIED, CHILD_READ),
        never("migrc:rfc2", RECEIVED, COPIED, CHILD_READ),
        never("migrc:v9", RECEIVED, COPIED, CHILD_READ),
        sometimes("mistake:fork-without-flush"),
    ),
    frugal=False,
)


async def _moves_and_forks(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await _fork(cpu)
    await user_write(cpu, PAGE, 11)


async def _reads(cpu: PerCpu) -> None:
    await read(cpu)
    await user_read(cpu, PAGE)


async def _child_reads_and_writes(cpu: PerCpu) -> None:
    await _child_reads(cpu, VERSION)
    await user_write(cpu, PAGE, 13)


# CPU 0                             CPU 1 has page -> src cached  CPU 2 is the child
# demote: src -> dst, deferred
# fork: dst is shared
#                                   read src
# flush the parent's mm
#                                                                 read dst: 7; write: fault
# write: fault                                                    flush, copy
# flush, copy, or have it alone
#                                   read: not src any more
FORK_PENDING = Litmus(
    name="fork-pending",
    question="A pending page is shared by fork; both sides write: who still reads the source?",
    programs=(_moves_and_forks, _reads, _child_reads_and_writes),
    setup=_read_only_page,
    expected=(
        never("immediate", COPIED, CHILD_READ),
        never("migrc:v3", DEFERRED, COPIED, CHILD_READ, STALE),
        never("migrc:rfc2", DEFERRED, COPIED, CHILD_READ, STALE),
        never("migrc:v9", DEFERRED, COPIED, CHILD_READ, STALE),
    ),
    frugal=False,
)


async def _forks_and_moves(cpu: PerCpu) -> None:
    await _fork(cpu)
    await move(cpu, 1)
    # A write before the move is through is another question (write-fault-before-hung).
    await Store(MOVED, 1)
    await user_write(cpu, PAGE, 11)


async def _child_writes_when_moved(cpu: PerCpu) -> None:
    await _child_reads(cpu, VERSION)
    await WaitFor(MOVED, 1)
    await user_write(cpu, PAGE, 13)


# CPU 0                             CPU 1 has page -> src cached  CPU 2 is the child, too
# fork: src is shared
# demote: src -> dst, deferred for
# both address spaces
# write: fault, pending, flush                                    write: fault; is it pending?
#                                   read src, before the IPI
# copy, or have dst alone                                         copy, or have dst alone
SHARED_PENDING = Litmus(
    name="fork-shared-pending",
    question="A page that parent and child share is pending, and both write: does each one's flush count?",
    programs=(_forks_and_moves, _reads, _child_writes_when_moved),
    setup=_read_only_page,
    expected=(
        never("immediate", COPIED, CHILD_READ),
        never("migrc:v3", DEFERRED, COPIED, CHILD_READ),
        never("migrc:rfc2", DEFERRED, COPIED, CHILD_READ),
        never("migrc:v9", DEFERRED, COPIED, CHILD_READ),
    ),
    frugal=False,
)


async def _forks_and_reads(cpu: PerCpu) -> None:
    await _fork(cpu)
    await user_read(cpu, PAGE)


# CPU 0 demotes                     CPU 1 forks, has src cached   CPU 2 is the child
# entry = migration entry
#                                   copy it, readable
#                                   flush the parent's mm
#                                                                 read: wait for the migration
# copy, both entries = dst
#                                   read                          read; write: fault, copy
# hang the request, or not yet
WHILE_MOVING = Litmus(
    name="fork-while-moving",
    question="A migration entry is copied by fork: does the page arrive in both address spaces?",
    programs=(mover, _forks_and_reads, _child_reads_and_writes),
    setup=_read_only_page,
    expected=(
        never("immediate", CHILD_READ, ENTRY_COPIED),
        never("migrc:v3", DEFERRED, CHILD_READ, ENTRY_COPIED),
        never("migrc:rfc2", DEFERRED, CHILD_READ, ENTRY_COPIED),
        never("migrc:v9", DEFERRED, CHILD_READ, ENTRY_COPIED),
    ),
    frugal=False,
)

TESTS = (FORK_WRITE, FORK_PENDING, SHARED_PENDING, WHILE_MOVING)
