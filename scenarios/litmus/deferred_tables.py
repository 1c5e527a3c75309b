"""Generations that say whether a flush is pending (`generations:...`): who has caught up with which?"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.pte import PMD_ORDER
from emulator.kernel.madvise import madvise_dontneed
from emulator.kernel.mprotect import PROT_READ
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.machine.litmus import FAST, MM, Litmus, Setup
from scenarios.litmus import walkers
from scenarios.litmus.answers import (
    AFTER_RETURN,
    FRAME_REUSED,
    FREE,
    FREED_TABLE,
    NO_PERMISSION,
    RECEIVED,
    RETURNED,
    REUSED,
    never,
    sometimes,
)
from scenarios.litmus.starts import OTHER, PAGE, VERSION, pages
from scenarios.litmus.steps import (
    bystander,
    call,
    cannot_write,
    in_order,
    once_returned,
    read_if_cached,
    returns,
    reuse,
)
from scenarios.litmus.syscalls import madvise, mprotect, munmap, switch_to

OTHER_MM = 2
LAST = (1 << PMD_ORDER) - 1  # the last page of a table; the next one is in another

# CPU 0                             CPU 1 has both pages cached
# munmap: the first entry; the
# gather is full: generation 2, IPI
#                                   handle the IPI: generation 2
# the second entry: still 2
# flush for 2: all have caught up
# free the frame
#                                   read the second page
TWICE = Litmus(
    name="gather-flushed-twice",
    question="A gather is full and flushes, and goes on: is what it changes after that flushed for?",
    programs=(call(munmap, PAGE, 2), call(read_if_cached, OTHER)),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", RECEIVED),
        sometimes("generations:rfc", FREE, RETURNED),
        never("generations:repaired", RECEIVED),
        sometimes("mistake:generation-kept", FREE, RETURNED),
    ),
    settings=(("mmu_gather_pages", 1),),
)


def _two_tables(setup: Setup) -> None:
    """A page at the end of a table and one at the beginning of the next, writable; CPU 1 runs another mm."""
    setup.area(LAST, 2)
    for vpn in (LAST, LAST + 1):
        setup.page(vpn, writable=True, dirty=True, version=VERSION)
    setup.load(1, OTHER_MM)


# CPU 0                             CPU 1 runs another mm
# mprotect: the first table,
# generation 2
#                                   load the mm: generation 2
#                                   walk to the second page
# the second table: still 2
# flush for 2: CPU 1 has it
# return
#                                   write to the second page
LOADED = Litmus(
    name="loaded-between-tables",
    question="A CPU loads the mm while mprotect goes from one page table to the next: is it flushed?",
    programs=(
        in_order(call(mprotect, LAST, PROT_READ, 2), call(returns)),
        in_order(call(switch_to), once_returned(call(cannot_write, LAST + 1))),
    ),
    setup=_two_tables,
    expected=(
        never("immediate", AFTER_RETURN),
        sometimes("generations:rfc", RETURNED, NO_PERMISSION),
        never("generations:repaired", AFTER_RETURN),
        sometimes("mistake:generation-kept", RETURNED, NO_PERMISSION),
    ),
    drain=False,
    frugal=False,
)


# CPU 0                             CPU 1 has cached which table the page would be in
# MADV_DONTNEED: the page goes
# munmap: nothing is mapped, the
# table goes; generation 0
# flush for 0: all have caught up
# free the table
#                                   walk ahead
EMPTY = replace(
    walkers.FREED,
    name="empty-table-freed",
    question="munmap finds nothing and frees the page table: does a walker that has cached it walk on?",
    programs=(
        in_order(call(madvise, walkers.TABLE, madvise_dontneed), call(munmap, walkers.TABLE)),
        bystander,
    ),
    expected=(
        never("immediate", RECEIVED),
        sometimes("generations:rfc", FREED_TABLE, RETURNED),
        never("generations:repaired", RECEIVED),
        sometimes("mistake:tables-without-generation", FREED_TABLE, RETURNED),
    ),
)

# CPU 0                             CPU 1 has the page cached
# MADV_DONTNEED: generation 2
#                                   flush for another page: generation 3, and so 2
# 2 is done: no flush
# use the frame again
DONE_BY_ANOTHER = Litmus(
    name="flushed-by-another",
    question="Somebody else's flush has covered a gather's: may it go without one of its own?",
    programs=(
        in_order(call(madvise, PAGE, madvise_dontneed), call(reuse, FAST)),
        in_order(call(flush_tlb_mm_range, MM, OTHER, OTHER + 1), call(read_if_cached)),
    ),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        never("generations:repaired", REUSED),
        sometimes("mistake:generation-done-early", RETURNED, FRAME_REUSED, FREE),
    ),
    drain=False,
    frugal=False,
    fast=1,
    slow=1,
)
