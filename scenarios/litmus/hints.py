"""NUMA hints on pages whose flush is still deferred: a hint fault gives back what the scanner took away.

The scanner makes entries inaccessible and flushes the range when it is through with it. In between, a fault
restores the entry, with its write permission if the page is exclusive; no posting looks at that place.
"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import Store, WaitFor
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Litmus, Setup
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    PAGE,
    STALE,
    VERSION,
    move,
    never,
    read_if_cached,
    reader,
    sometimes,
)

WRITABLE = "grace period: destination made writable"
RESTORED = "numa_writable"
PROMOTED = "numa_pages_migrated"
HINTS = "numa_hint_faults"
MOVED = "litmus.moved"
SCANNED = "litmus.scanned"


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.cache(0, PAGE)
    setup.cache(2, PAGE)


async def _mover_and_scanner(cpu: PerCpu) -> None:
    await move(cpu, 1)
    # A fault before the move is through is another question (write-fault-before-hung).
    await Store(MOVED, 1)
    await change_prot_numa(cpu, MM, PAGE, PAGE + 1)


async def _writer(cpu: PerCpu) -> None:
    await WaitFor(MOVED, 1)
    await user_write(cpu, PAGE, 12)


# CPU 0                             CPU 1 writes                  CPU 2 has page -> src cached
# demote: src -> dst, deferred
# scan: entry = PROT_NONE
#                                   hint fault, not hot enough
#                                   entry = dst, writable: nobody
#                                   asks whether dst is pending
#                                   write 12
#                                                                 read src: still 7
# flush of the scanned range
RESTORES_WRITE = Litmus(
    name="hint-restores-write",
    question="A hint fault makes a pending page writable while the scanner's flush is to come: who flushes?",
    programs=(_mover_and_scanner, _writer, reader),
    setup=_one_page,
    expected=(
        never("immediate", RESTORED),
        sometimes("migrc:v3", WRITABLE),
        sometimes("migrc:rfc2", WRITABLE),
        sometimes("migrc:v9", WRITABLE),
    ),
    settings=(("numa_promotes", False),),
    frugal=False,
)

# As above, where the scanner first flushes for what was unmapped before (change_pte_range, mainline).
RESTORES_WRITE_BATCHED = replace(
    RESTORES_WRITE,
    name="hint-restores-write-batched",
    question="The same, where the scanner first flushes for what was unmapped before (tlb_flush_batched).",
    expected=(
        never("immediate", RESTORED),
        never("migrc:v3", DEFERRED, RESTORED),
        never("migrc:rfc2", DEFERRED, RESTORED),
        never("migrc:v9", DEFERRED, RESTORED),
    ),
    settings=(("numa_promotes", False), ("tlb_flush_batched", True)),
)


async def _toucher_and_writer(cpu: PerCpu) -> None:
    await WaitFor(MOVED, 1)
    await user_read(cpu, PAGE)
    # A write before the scan is another question (dirty-entry-cached).
    if cpu.counted(HINTS):
        await user_write(cpu, PAGE, 12)


async def _reader_of_what_is_cached(cpu: PerCpu) -> None:
    # A hint fault here would promote at the same time: another question (hint-promotes-before-hung).
    await read_if_cached(cpu)


# CPU 0                             CPU 1                         CPU 2 has page -> src cached
# demote: src -> dst, deferred
# scan: entry = PROT_NONE
#                                   hint fault: promote dst, which
#                                   itself is pending, to another
#                                   frame; the entry comes back
#                                   read-only
#                                                                 read src
# flush of the scanned range
#                                   write fault: is what is left of
#                                   either move still remembered?
PROMOTES_PENDING = Litmus(
    name="hint-promotes-pending",
    question="A hint fault promotes a page whose demotion is still to be flushed: is the first source safe?",
    programs=(_mover_and_scanner, _toucher_and_writer, _reader_of_what_is_cached),
    setup=_one_page,
    expected=(
        never("immediate", PROMOTED),
        never("migrc:v3", DEFERRED, PROMOTED, STALE),
        never("migrc:rfc2", DEFERRED, PROMOTED, STALE),
        never("migrc:v9", DEFERRED, PROMOTED, STALE),
    ),
    frugal=False,
    asks=(HINTS,),
)


def _page_to_promote(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, SLOW, version=VERSION)


async def _scanner_and_promoter(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, PAGE, PAGE + 1)
    await Store(SCANNED, 1)
    await user_read(cpu, PAGE)


async def _reader_and_writer(cpu: PerCpu) -> None:
    await WaitFor(SCANNED, 1)
    await user_read(cpu, PAGE)
    await user_write(cpu, PAGE, 12)


# CPU 0 reads: hint fault           CPU 1
# isolate src
#                                   read: hint fault, isolated by another:
#                                   entry = src again, read-only; cached
# unmap, copy, entry = dst
#                                   write fault: flagged; the list is empty
#                                   entry = writable, write 12
# hang the request
PROMOTES_NOT_HUNG = Litmus(
    name="hint-promotes-before-hung",
    question="Two hint faults at once, one promotes: does the other's write see a request not yet hung?",
    programs=(_scanner_and_promoter, _reader_and_writer),
    setup=_page_to_promote,
    expected=(
        never("immediate", PROMOTED),
        sometimes("migrc:v3", WRITABLE),
        never("migrc:rfc2", DEFERRED, PROMOTED),
        never("migrc:v9", DEFERRED, PROMOTED),
    ),
    frugal=False,
)

TESTS = (RESTORES_WRITE, RESTORES_WRITE_BATCHED, PROMOTES_PENDING, PROMOTES_NOT_HUNG)
