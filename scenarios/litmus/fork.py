"""fork: what the child maps is what the parent had then, whatever the parent's other threads have cached."""

from __future__ import annotations

from emulator.hardware.operations import SmpMb, Store, WaitFor
from emulator.kernel.fork import dup_mmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.litmus.answers import DEFERRED, RECEIVED, RETURNED, STALE, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, VERSION, Start, pages
from scenarios.litmus.steps import MOVED, call, in_order, mover, read_if_cached, reader

CHILD = 2
FIRST_CHILD = 3
FORKED = "litmus.forked"
COPIED = "pgcow"
CHILD_READ = "litmus_child_read"
ENTRY_COPIED = "fork_migration_entries"
CONTENT = "the child sees the parent's writes"


def _parent_and_child(written: bool) -> Start:
    def start(setup: Setup) -> None:
        pages(PAGE, cached=(0, 1), written=written, area=1)(setup)
        # It is empty until the fork; its CPU waits.
        setup.load(2, CHILD)

    return start


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


_reads_twice = in_order(reader, call(user_read, PAGE))
_child_reads_and_writes = in_order(call(_child_reads, VERSION), call(user_write, PAGE, 13))


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
    programs=(
        in_order(call(_fork), call(user_write, PAGE, 11)),
        call(user_write, PAGE, 12),
        call(_child_reads, VERSION, 12),
    ),
    setup=_parent_and_child(written=True),
    expected=(
        never("immediate", RECEIVED, COPIED, CHILD_READ),
        *postings_never(RECEIVED, COPIED, CHILD_READ),
        sometimes("mistake:fork-without-flush"),
    ),
    frugal=False,
)


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
    programs=(
        in_order(mover, call(_fork), call(user_write, PAGE, 11)),
        _reads_twice,
        _child_reads_and_writes,
    ),
    setup=_parent_and_child(written=False),
    expected=(
        never("immediate", COPIED, CHILD_READ),
        *postings_never(DEFERRED, COPIED, CHILD_READ, STALE),
    ),
    frugal=False,
)


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
    programs=(
        # A write before the move is through is another question (write-fault-before-hung).
        in_order(call(_fork), mover, Store(MOVED, 1), call(user_write, PAGE, 11)),
        call(read_if_cached),
        in_order(call(_child_reads, VERSION), WaitFor(MOVED, 1), call(user_write, PAGE, 13)),
    ),
    setup=_parent_and_child(written=False),
    expected=(
        never("immediate", COPIED, CHILD_READ),
        *postings_never(DEFERRED, COPIED, CHILD_READ),
    ),
    frugal=False,
)


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
    programs=(mover, in_order(call(_fork), call(user_read, PAGE)), _child_reads_and_writes),
    setup=_parent_and_child(written=False),
    expected=(
        never("immediate", CHILD_READ, ENTRY_COPIED),
        *postings_never(DEFERRED, CHILD_READ, ENTRY_COPIED),
    ),
    frugal=False,
)


async def _forks_twice(cpu: PerCpu) -> None:
    await dup_mmap(cpu, MM, FIRST_CHILD, ((PAGE, PAGE + 1),))
    # A copy of its own, writable again: there is something to take away.
    await user_write(cpu, PAGE, 11)
    await _fork(cpu)


# CPU 0 forks                       CPU 1, another thread         CPU 2 is the second child
# entries read-only, flush
# write 11: fault, copy, writable
#                                   write 12: through that
# forks again: entries read-only
#                                   write, without a fault
# flush: is it owed again?
#                                                                 read: 11 or 12, and so it stays
FORK_AGAIN = Litmus(
    name="fork-again",
    question="A process forks a second time: what it may write to by then, is that flushed for as well?",
    programs=(_forks_twice, call(user_write, PAGE, 12), call(_child_reads, 11, 12)),
    setup=_parent_and_child(written=True),
    expected=(
        never("immediate", RECEIVED, COPIED, CHILD_READ),
        *postings_never(RECEIVED, COPIED, CHILD_READ),
        sometimes("mistake:forks-one-flush", RETURNED),
    ),
    frugal=False,
)
