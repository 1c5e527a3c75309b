"""An entry cached writable and dirty lets its CPU write without a fault, whatever the page table says."""

from __future__ import annotations

from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Litmus, Setup
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    PAGE,
    RECEIVED,
    VERSION,
    move,
    mover,
    never,
    reader,
    sometimes,
)

PROMOTED = "numa_pages_migrated"
OTHER_MM = 2


def _written_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, SLOW, writable=True, dirty=True, version=VERSION)
    setup.cache(2, PAGE)


async def _scanner(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, PAGE, PAGE + 1)


async def _promoter(cpu: PerCpu) -> None:
    await user_read(cpu, PAGE)


async def _writer(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 13)


# CPU 0 scans                       CPU 1 faults                  CPU 2 has it writable and dirty
# entry = PROT_NONE, dirty
#                                   promote: not writable, defer?
#                                   copy
#                                                                 write the source: lost
# flush
DIRTY_CACHED = Litmus(
    name="dirty-entry-cached",
    question="An entry cached writable and dirty is write-protected by now: may its flush be deferred?",
    programs=(_scanner, _promoter, _writer),
    setup=_written_page,
    expected=(
        never("immediate", PROMOTED),
        never("migrc:v3", PROMOTED),
        sometimes("migrc:rfc2"),
    ),
    fast=2,
    slow=1,
)


def _writable_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, writable=True, dirty=True, version=VERSION)
    setup.cache(1, PAGE)


async def _late_writer(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 12)
    await user_read(cpu, PAGE)


# CPU 0 demotes                     CPU 1 has frame 1 cached writable
# entry = migration entry
# IPI, wait for it
#                                   write frame 1: still the page's
#                                   handle the IPI
# copy, entry = destination
#                                   read, write: find the destination
WRITABLE = Litmus(
    name="writable-entry-cached",
    question="Is a page moved only when nobody can write to its old frame any more?",
    programs=(mover, _late_writer),
    setup=_writable_page,
    expected=(
        never("immediate", RECEIVED),
        never("migrc:v3", RECEIVED),
        never("migrc:rfc2", RECEIVED),
        never("migrc:v9", RECEIVED),
        sometimes("mistake:defers-writable"),
    ),
    fast=2,
    slow=1,
)


def _dirty_and_clean(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, dirty=True, version=VERSION)
    setup.cache(1, PAGE)
    # The clean page is another process', so that the flush for it does not interrupt CPU 1.
    setup.load(2, OTHER_MM)
    setup.area(PAGE, AREA_PAGES, mm=OTHER_MM)
    setup.page(PAGE, version=VERSION, mm=OTHER_MM)
    setup.cache(2, PAGE, mm=OTHER_MM)


async def _moves_both_and_writes(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await move(cpu, 2)
    await user_write(cpu, PAGE, 11)


async def _bystander(cpu: PerCpu) -> None:
    """Has the other page cached."""


# CPU 0                             CPU 1 has frame 1 cached, read-only and dirty
# demote 1: on the dirty list
# demote 2: on the clean list
# fault on 1's page: flush the clean
# list; that was something, so return
# write
#                                   read frame 1
DIRTY_LIST = Litmus(
    name="dirty-list-left",
    question="Requests wait on two lists: does a write fault flush for both?",
    programs=(_moves_both_and_writes, reader, _bystander),
    setup=_dirty_and_clean,
    expected=(
        never("migrc:v3", DEFERRED, RECEIVED),
        sometimes("migrc:rfc1"),
        sometimes("migrc:rfc2"),
        never("migrc:v9", DEFERRED, RECEIVED),
    ),
    fast=2,
    slow=2,
)

TESTS = (DIRTY_CACHED, WRITABLE, DIRTY_LIST)
