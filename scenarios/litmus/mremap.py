"""mremap moves a page to another address: who finds it there must not have to know where it was before."""

from __future__ import annotations

from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_inode_pages
from emulator.machine.litmus import FAST, MM, Litmus
from scenarios.litmus.answers import DEFERRED, REUSED, STALE, never, postings_never, sometimes
from scenarios.litmus.starts import FILE, PAGE, file_page, pages
from scenarios.litmus.steps import call, in_order, mover, read_if_cached, reuse

NEW = PAGE + 0x200  # in another page table
MOVED = "litmus_mremapped"
TRUNCATED = "litmus_truncated"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


async def _moves(cpu: PerCpu) -> None:
    cpu.count(MOVED, await mremap_to(cpu, MM, PAGE, NEW, 1))


async def _truncates(cpu: PerCpu) -> None:
    cpu.count(TRUNCATED, await truncate_inode_pages(cpu, FILE, ((MM, PAGE), (MM, NEW)), 0, 1))


# CPU 0 moves PAGE to NEW           CPU 1 has PAGE -> 1 cached
# clear PAGE; NEW = 1
# unlock, and flush PAGE only then?
#                                   truncate: clear NEW, flush NEW
#                                   free 1, reuse
# flush PAGE
TRUNCATE = Litmus(
    name="mremap-truncate",
    question="mremap has moved a page, which is truncated there: is it still read at its old address?",
    programs=(_moves, in_order(_truncates, call(reuse, FAST))),
    setup=file_page(),
    expected=(
        never("immediate", MOVED, TRUNCATED, REUSED),
        *postings_never(MOVED, TRUNCATED, REUSED),
        sometimes("mistake:mremap-flush-late"),
    ),
    frugal=FRUGAL,
    fast=1,
)

# CPU 0                             CPU 1 has PAGE -> src cached
# demote: src -> dst, deferred
# mremap: NEW = dst; IPI for PAGE
#                                   read src, before it
#                                   handle the IPI
# flush what is pending, free src, reuse
PENDING = Litmus(
    name="mremap-pending",
    question="A pending page moves to another address: what happens to its source's translations?",
    programs=(in_order(mover, _moves, call(reuse, FAST)), call(read_if_cached)),
    setup=pages(PAGE, area=1),
    expected=(never("immediate", MOVED, REUSED), *postings_never(DEFERRED, MOVED, REUSED, STALE)),
    frugal=FRUGAL,
    fast=1,
    slow=2,
)
