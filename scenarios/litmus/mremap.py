"""mremap moves a page to another address: who finds it there must not have to know where it was before."""

from __future__ import annotations

from emulator.kernel.mmap import do_mmap
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_inode_pages
from emulator.machine.litmus import FAST, MM, Litmus
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.litmus.answers import (
    DEFERRED,
    FRAME_REUSED,
    REUSED,
    STALE,
    never,
    postings_never,
    sometimes,
)
from scenarios.litmus.mappings import MAPPED_ANEW
from scenarios.litmus.starts import FILE, OTHER, PAGE, file_page, pages
from scenarios.litmus.steps import call, in_order, mover, read_if_cached, reuse

NEW = PAGE + 0x200  # in another page table
MOVED = "litmus_mremapped"
TRUNCATED = "litmus_truncated"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


async def _moves(cpu: PerCpu) -> None:
    cpu.count(MOVED, await mremap_to(cpu, MM, PAGE, NEW, 1))


async def _moves_both(cpu: PerCpu) -> None:
    cpu.count(MOVED, await mremap_to(cpu, MM, PAGE, NEW, 2))


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
        sometimes("mistake:mremap-flush-late", FRAME_REUSED),
    ),
    frugal=FRUGAL,
    fast=1,
)

# CPU 0                             CPU 1 has PAGE -> src cached, and OTHER
# demote: src -> dst, deferred
# mremap: NEW = dst, the next one too; IPI for both pages
#                                   read src, before it
#                                   handle the IPI
#                                   read neither
# flush what is pending, free src, reuse
PENDING = Litmus(
    name="mremap-pending",
    question="A pending page moves to another address: what happens to its source's translations?",
    programs=(
        in_order(mover, _moves_both, call(reuse, FAST)),
        in_order(call(read_if_cached), call(read_if_cached, OTHER)),
    ),
    setup=pages(PAGE, OTHER, area=2),
    expected=(
        never("immediate", MOVED, REUSED),
        *postings_never(DEFERRED, MOVED, REUSED, STALE),
        sometimes("mistake:mremap-flushes-one-page"),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


async def _moves_and_maps_anew(cpu: PerCpu) -> None:
    await _moves(cpu)
    if await do_mmap(cpu, MM, PAGE, PAGE + 1, VM_READ | VM_WRITE):
        cpu.count(MAPPED_ANEW)


# CPU 0 demotes                     CPU 1 moves PAGE to NEW, and has PAGE -> 1 cached
# entry = migration entry, counted
#                                   flush the mm for what was unmapped
#                                   NEW = that entry: nothing was present, so there is no flush
#                                   mmap PAGE: nobody may reach frame 1 there
# flush
WHILE_MOVING = Litmus(
    name="mremap-while-moving",
    question="mremap moves a migration entry whose flush is still owed: is the old address free for others?",
    programs=(mover, _moves_and_maps_anew),
    setup=pages(PAGE),  # in a page table that others use: freeing it would flush, too
    expected=(
        never("immediate", MOVED, MAPPED_ANEW),
        *postings_never(MOVED, MAPPED_ANEW),
        sometimes("mistake:before-3ea277194daa", "grace period: range reused"),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)
