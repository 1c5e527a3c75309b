"""A write to a page whose old read-only translations are still about: flush first, then make it writable."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import Litmus, Setup
from scenarios.litmus.steps import (
    DEFERRED,
    PAGE,
    STALE,
    VERSION,
    WRITE_FAULTS,
    cached_page,
    move,
    mover,
    never,
    reader,
    sometimes,
)

FILE = 1
ELSEWHERE = 0x20


async def _mover_and_writer(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await user_write(cpu, PAGE, 11)


async def _writer(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 12)


# CPU 0 demotes, then writes        CPU 1 has the source cached
# move, the request is hung
# fault: pending, take list, IPI
#                                   read the source: fine, nothing is written yet
#                                   handle the IPI
# entry = writable, write
#                                   read: finds the destination
PENDING_WRITE = Litmus(
    name="write-fault-pending",
    question="Does a write fault on a pending folio flush before the page can change?",
    programs=(_mover_and_writer, reader),
    setup=cached_page,
    expected=(
        never("immediate"),
        never("migrc:v3", DEFERRED, WRITE_FAULTS, STALE),
        never("migrc:rfc2", DEFERRED, WRITE_FAULTS, STALE),
        never("migrc:v9", DEFERRED, WRITE_FAULTS, STALE),
        sometimes("mistake:write-fault-forgets"),
    ),
)

# CPU 0 demotes                     CPU 1 writes                  CPU 2 has the source cached
# copy, entry = dst, read-only
#                                   fault: flagged; list is empty
#                                   entry = writable, write 12
#                                                                 read the source: 7
# hang the request
NOT_YET_HUNG = Litmus(
    name="write-fault-before-hung",
    question="What if the write comes when the destination is mapped but the request is still private?",
    programs=(mover, _writer, reader),
    setup=cached_page,
    expected=(
        never("immediate", "nr_tlb_remote_flush_received"),
        sometimes("migrc:v3"),
        never("migrc:rfc2", DEFERRED, WRITE_FAULTS, STALE),
        never("migrc:v9", DEFERRED, WRITE_FAULTS, STALE),
    ),
)


def _file_mapped_twice(setup: Setup) -> None:
    for start in (PAGE, ELSEWHERE):
        setup.area(start, 1, file=FILE, shared=True)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION)
    setup.in_page_cache(pfn, FILE, 0)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _mover_and_mapper(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await user_write(cpu, ELSEWHERE, 11)


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# write elsewhere: nothing is mapped
# there, so no write-protect fault;
# do_shared_fault maps dst writable
# write 11
#                                   read the source: 7
SHARED_FAULT = Litmus(
    name="shared-fault-pending",
    question="A fault maps a pending page of a file writable at another address: does it flush first?",
    programs=(_mover_and_mapper, reader),
    setup=_file_mapped_twice,
    expected=(
        never("immediate", "nr_tlb_remote_flush_received"),
        sometimes("migrc:v3", "grace period: destination made writable"),
        sometimes("migrc:rfc2", "grace period: destination made writable"),
        sometimes("migrc:v9", "grace period: destination made writable"),
    ),
)

TESTS = (PENDING_WRITE, NOT_YET_HUNG, SHARED_FAULT)
