"""NUMA hints on pages whose flush is still deferred: a hint fault gives back what the scanner took away.

The scanner makes entries inaccessible and flushes the range when it is through with it. In between, a fault
restores the entry, with its write permission if the page is exclusive; no posting looks at that place.
"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import ReadFrame, Store, Translate, WaitFor
from emulator.hardware.pte import pte_pfn
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Litmus
from scenarios.litmus.answers import (
    DEFERRED,
    MADE_WRITABLE,
    PROMOTED,
    THROUGH_CACHED,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import MOVED, call, in_order, mover, reader, scanner

RESTORED = "numa_writable"
HINTS = "numa_hint_faults"
SCANNED = "litmus.scanned"
ONE_PAGE = pages(PAGE, cached=(0, 2))

# A fault before the move is through is another question (write-fault-before-hung).
_moves_and_scans = in_order(mover, Store(MOVED, 1), scanner)


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
    programs=(_moves_and_scans, in_order(WaitFor(MOVED, 1), call(user_write, PAGE, 12)), reader),
    setup=ONE_PAGE,
    expected=(never("immediate", RESTORED), *postings_sometimes(MADE_WRITABLE)),
    settings=(("numa_promotes", False), ("tlb_flush_batched", False)),
    frugal=False,
)

# As above, where the scanner first flushes for what was unmapped before (change_pte_range,
# mainline since v4.13).
RESTORES_WRITE_BATCHED = replace(
    RESTORES_WRITE,
    name="hint-restores-write-batched",
    question="The same, where the scanner first flushes for what was unmapped before (tlb_flush_batched).",
    expected=(never("immediate", RESTORED), *postings_never(DEFERRED, RESTORED)),
    settings=(("numa_promotes", False),),
)


async def _toucher_and_writer(cpu: PerCpu) -> None:
    await WaitFor(MOVED, 1)
    await user_read(cpu, PAGE)
    # A write before the scan is another question (dirty-entry-cached).
    if cpu.counted(HINTS):
        await user_write(cpu, PAGE, 12)


async def _reads_what_it_has(cpu: PerCpu) -> None:
    """One read through what is cached, without a look at the entry."""
    cached = await Translate(PAGE, False)
    if cached:
        cpu.count(THROUGH_CACHED)
        await ReadFrame(MM, PAGE, pte_pfn(cached))


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
    # A hint fault on CPU 2 would promote at the same time: another question (hint-promotes-before-hung).
    programs=(_moves_and_scans, _toucher_and_writer, _reads_what_it_has),
    setup=ONE_PAGE,
    expected=(never("immediate", PROMOTED), *postings_never(DEFERRED, PROMOTED, THROUGH_CACHED)),
    drain=False,
    frugal=False,
    asks=(HINTS,),
)


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
    programs=(
        in_order(scanner, Store(SCANNED, 1), call(user_read, PAGE)),
        in_order(WaitFor(SCANNED, 1), call(user_read, PAGE), call(user_write, PAGE, 12)),
    ),
    setup=pages(PAGE, node=SLOW, cached=()),
    expected=(
        never("immediate", PROMOTED),
        sometimes("migrc:v3", MADE_WRITABLE),
        never("migrc:rfc2", DEFERRED, PROMOTED),
        never("migrc:v9", DEFERRED, PROMOTED),
    ),
    frugal=False,
)
