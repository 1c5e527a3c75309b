"""What is decided under the page-table lock, and what has to be flushed before it is dropped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from emulator.hardware.operations import (
    CmpxchgPte,
    FindVma,
    FolioPut,
    FolioTryGet,
    GetPte,
    Load,
    Lock,
    SmpRmb,
    SmpWmb,
    Store,
    Translate,
    Unlock,
    WriteFrame,
)
from emulator.hardware.pte import EXCLUSIVE, RW, pte_pfn, ptl
from emulator.kernel.gup import kernel_read
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.migrate_device import migrate_vma
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.mprotect import PROT_NONE, PROT_READ, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Body, Forbidden, Litmus, Setup
from emulator.memory.page_table import Vma
from scenarios.litmus.answers import (
    DEFERRED,
    LUF,
    NO_PERMISSION,
    RECEIVED,
    RETURNED,
    never,
    never_on_x86,
    sometimes,
)
from scenarios.litmus.pageout import LOST, RECLAIMED, WRITTEN, WRITTEN_OUT
from scenarios.litmus.starts import FLAG, OTHER, PAGE, VERSION, file_page, pages
from scenarios.litmus.steps import call, in_order
from scenarios.litmus.syscalls import KEPT, reclaim

DONE = "litmus.done_with_it"
COPIED = "pgcow"
PROTECT_FIRST = "litmus_protected"


async def _writes_what_is_cached(cpu: PerCpu) -> None:
    cached = await Translate(PAGE, True)
    if cached:
        await WriteFrame(MM, PAGE, pte_pfn(cached), 12)


# CPU 0 unmaps                      CPU 1 reclaims                CPU 2 has the page writable and dirty
# take the lock, clear the entry:
# dirty, so the page stays in the
# reverse map
#                                   still mapped: leave it
#                                                                 write 12, without a fault
# flush, take it out of the
# reverse map, drop the lock
#                                   mapped nowhere: write out
MUNMAP_WRITEBACK = Litmus(
    name="munmap-writeback",
    question="A dirty page of a file is unmapped while it is reclaimed: is what is still cached written out?",
    programs=(call(do_munmap, MM, PAGE, PAGE + 1), call(reclaim, 1), _writes_what_is_cached),
    setup=file_page(written=True, stored=True, cached=(2,)),
    expected=(
        never("immediate", RECEIVED, RECLAIMED, WRITTEN, KEPT),
        sometimes("mistake:rmap-before-flush", WRITTEN_OUT),
    ),
    drain=False,
    frugal=False,
)


async def _protects_and_reads(cpu: PerCpu) -> None:
    """write_protect_page of mm/ksm.c, and whoever else wants a page that stays as it is."""
    lock = ptl(MM, PAGE)
    await FolioTryGet(1)
    await Lock(lock)
    old = await GetPte(MM, PAGE)
    while pte_pfn(old) == 1 and (seen := await CmpxchgPte(MM, PAGE, old, old & ~(RW | EXCLUSIVE))) != old:
        old = seen
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1)
    await Unlock(lock)
    first = await kernel_read(MM, PAGE, 1)
    second = await kernel_read(MM, PAGE, 1)
    if first != second:
        raise Forbidden("written while write-protected", f"version {first}, then {second}")
    await FolioPut(1)


async def _keeps_what_it_writes(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 13)
    version = await user_read(cpu, PAGE)
    if version == VERSION:
        raise Forbidden(LOST, f"read version {version} after writing 13")


# CPU 0                             CPU 1 writes                  CPU 2 has the page writable
# lock, entry read-only
#                                   fault: wait for the lock
#                                                                 write 13, without a fault
# IPI, wait; drop the lock
#                                   look, decide: copy, 13 is in it
WRITE_PROTECTED = Litmus(
    name="write-protected-under-lock",
    question="Write-protect and flush under the lock: does a write fault copy what is still written?",
    programs=(
        call(_protects_and_reads),
        call(user_write, PAGE, 12),
        _keeps_what_it_writes,
    ),
    setup=pages(PAGE, cached=(2,), written=True),
    expected=(never("immediate", RECEIVED, COPIED),),
    frugal=False,
)


def _change_and_tell(change: Callable[[PerCpu], Awaitable[object]]) -> Body:
    return in_order(call(change), SmpWmb(), Store(DONE, 1))


async def _uses_what_is_cached(cpu: PerCpu) -> None:
    done = await Load(DONE)
    await SmpRmb()
    cached = await Translate(PAGE, False)
    if done and cached:
        raise Forbidden("no permission", f"frame {pte_pfn(cached)} may be read when the call has returned")


def _file_page_beside_another(setup: Setup) -> None:
    """Another area uses the page table too: munmap does not free it, which would be flushed for."""
    file_page(stored=True, cached=(2,))(setup)
    setup.area(FLAG, 1)


# CPU 0 reclaims                    CPU 1 unmaps                  CPU 2 has the page cached
# lock, clear the entry, count
# that, drop the lock
#                                   lock; an unmap is pending:
#                                   flush the mm; nothing mapped
#                                   return to the caller
#                                                                 a fault, and refused
# flush of the batch
MUNMAP_RECLAIMED = Litmus(
    name="munmap-reclaimed",
    question="Reclaim has emptied munmap's range and not flushed yet: may it be read after munmap?",
    programs=(
        call(reclaim, 1),
        _change_and_tell(lambda cpu: do_munmap(cpu, MM, PAGE, PAGE + 1)),
        _uses_what_is_cached,
    ),
    setup=_file_page_beside_another,
    expected=(
        never("immediate", RECEIVED, RECLAIMED),
        *(never_on_x86(policy, DEFERRED) for policy in LUF[:3]),
        sometimes("mistake:before-3ea277194daa", NO_PERMISSION, RETURNED),
    ),
    drain=False,
    frugal=False,
)
MPROTECT_RECLAIMED = replace(
    MUNMAP_RECLAIMED,
    name="mprotect-reclaimed",
    question="The same with mprotect: may the range be read when it is PROT_NONE?",
    programs=(
        call(reclaim, 1),
        _change_and_tell(lambda cpu: do_mprotect_pkey(cpu, MM, PAGE, PAGE + 1, PROT_NONE)),
        _uses_what_is_cached,
    ),
)


async def _protects(cpu: PerCpu) -> None:
    await do_mprotect_pkey(cpu, MM, PAGE, PAGE + 1, PROT_READ)
    await SmpWmb()
    await Store(DONE, 1)


async def _writes_twice(cpu: PerCpu) -> None:
    try:
        await user_write(cpu, PAGE, 12)
        done = await Load(DONE)
        await SmpRmb()
        await user_write(cpu, PAGE, 13)
    except SegmentationFault:
        cpu.count("litmus_refused")
        return
    if done:
        raise Forbidden("written after mprotect", "the page is read-only, and could be written")


# CPU 0                             CPU 1
#                                   write fault: the area is writable, lock it
# mprotect: waits for the fault
#                                   the entry is writable; unlock
# area and entry read-only, flush
# return to the caller
#                                   write: fault, refused
PROTECTED_FAULT = Litmus(
    name="mprotect-while-faulting",
    question="A write fault is under way when mprotect takes the right: may the page be written afterwards?",
    programs=(_protects, _writes_twice),
    setup=pages(PAGE),
    expected=(
        never("immediate", "litmus_refused"),
        sometimes("mistake:areas-unlocked", "written after mprotect"),
    ),
    frugal=False,
)


async def _dontneed(cpu: PerCpu) -> None:
    """MADV_DONTNEED: zap_page_range_single, the mmap_lock held for reading. A read then finds a new page."""
    vma = Vma(*await FindVma(MM, PAGE))
    await zap_page_range_single(cpu, MM, vma, PAGE, PAGE + 1)
    version = await user_read(cpu, PAGE)
    if version == VERSION:
        raise Forbidden("not zero", f"version {version} is read after MADV_DONTNEED")


def _shared_page(setup: Setup) -> None:
    """Not exclusive, as after fork: an exclusive one is flushed for when its entry is cleared."""
    setup.area(PAGE, 2)
    for vpn in (PAGE, OTHER):
        setup.page(vpn, exclusive=False, version=VERSION, cached=(1,))


# CPU 0 migrates two pages          CPU 1 has both cached
# lock, entry = migration entry,
# flush, drop the lock
#                                   MADV_DONTNEED: a migration entry,
#                                   nothing to flush for; return
#                                   read: a fault, a new page
MIGRATE_VMA = Litmus(
    name="migrate-vma-dontneed",
    question="migrate_vma leaves migration entries: may MADV_DONTNEED return while their pages are cached?",
    programs=(call(migrate_vma, MM, PAGE, PAGE + 2, SLOW), _dontneed),
    setup=_shared_page,
    expected=(
        never("immediate", RECEIVED),
        sometimes("mistake:migrate-vma-flush-after-unlock", "not zero", "grace period: range reused"),
        sometimes("mistake:migrate-vma-flushes-one-page"),
    ),
    frugal=False,
)
