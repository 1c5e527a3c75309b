"""System calls and what the kernel does by itself, each one awaitable with its usual arguments, in pages.

For programs of litmus tests: `await munmap(cpu, PAGE)`, or `call(munmap, PAGE)` as a program. They act on the
address space that the CPU runs, unless one says `mm`.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    DownRead,
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    LocalIrqDisable,
    LocalIrqEnable,
    SmpMb,
    UpRead,
)
from emulator.kernel.filemap import ext4_buffered_write_iter
from emulator.kernel.fork import dup_mmap, mmdrop
from emulator.kernel.gup import (
    get_user_pages,
    pin_user_pages_fast,
    pin_user_pages_fast_only,
    put_page,
    unpin_user_page,
    unpin_user_pages_dirty_lock,
)
from emulator.kernel.gup import kernel_read as kernel_read
from emulator.kernel.gup import kernel_write as kernel_write
from emulator.kernel.khugepaged import collapse_huge_page
from emulator.kernel.ksm import try_to_merge_two_pages
from emulator.kernel.madvise import (
    Advice,
    do_madvise,
    madvise_cold,
    madvise_dontneed,
    madvise_free,
    madvise_pageout,
)
from emulator.kernel.migrate_device import migrate_vma
from emulator.kernel.mmap import do_mmap, do_munmap, mmap_region
from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.mprotect import PROT_NONE as PROT_NONE
from emulator.kernel.mprotect import PROT_READ as PROT_READ
from emulator.kernel.mprotect import READ_WRITE as READ_WRITE
from emulator.kernel.mprotect import change_prot_numa, do_mprotect_pkey, mmap_lock
from emulator.kernel.mremap import mremap_to
from emulator.kernel.oom_kill import oom_reap_task_mm
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pfnmap import revoke
from emulator.kernel.sched import scheduler_tick
from emulator.kernel.task_mmu import CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.truncate import (
    Mappings,
    do_truncate,
    ext4_punch_hole,
    truncate_pagecache,
    truncate_pagecache_range,
)
from emulator.kernel.userfaultfd import mwriteprotect_range, userfaultfd_register
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.machine.litmus import MM, SLOW
from emulator.memory.page_table import VM_SHARED
from scenarios.litmus.starts import FILE, PAGE

MADV_DONTNEED: Advice = madvise_dontneed
MADV_FREE: Advice = madvise_free
MADV_COLD: Advice = madvise_cold
MADV_PAGEOUT: Advice = madvise_pageout
KEPT = "litmus_kept"


def _mm(cpu: PerCpu) -> int:
    return cpu.tlbstate.loaded_mm


# --- areas -----------------------------------------------------------------------------------------


async def mmap(
    cpu: PerCpu,
    start: int,
    pages: int = 1,
    prot: int = READ_WRITE,
    file: int = 0,
    pgoff: int = 0,
    shared: bool = False,
    fixed: bool = False,
) -> bool:
    """mmap with MAP_FIXED_NOREPLACE: false if there is an area already; `fixed`: with MAP_FIXED, over it."""
    flags = prot | (VM_SHARED if shared else 0)
    if fixed:
        await mmap_region(cpu, _mm(cpu), start, start + pages, flags, file, pgoff)
        return True
    return await do_mmap(cpu, _mm(cpu), start, start + pages, flags, file, pgoff)


async def munmap(cpu: PerCpu, start: int, pages: int = 1) -> int:
    """munmap; how many pages were mapped."""
    return await do_munmap(cpu, _mm(cpu), start, start + pages)


async def mprotect(cpu: PerCpu, start: int, prot: int, pages: int = 1) -> bool:
    """mprotect with PROT_NONE, PROT_READ or READ_WRITE; false where there is no area."""
    return await do_mprotect_pkey(cpu, _mm(cpu), start, start + pages, prot)


async def mremap(cpu: PerCpu, old: int, new: int, pages: int = 1) -> bool:
    """mremap with MREMAP_MAYMOVE | MREMAP_FIXED."""
    return await mremap_to(cpu, _mm(cpu), old, new, pages)


async def fork(cpu: PerCpu, child: int, start: int = PAGE, pages: int = 1) -> None:
    """fork into the empty mm `child`, of the areas in these pages. CPUs that run the child must wait."""
    await dup_mmap(cpu, _mm(cpu), child, ((start, start + pages),))


async def exits(cpu: PerCpu, mm: int, start: int = PAGE, pages: int = 1) -> None:
    """exit_mmap of an address space that no CPU runs any more."""
    await exit_mmap(cpu, mm, ((start, start + pages),))


# --- pages -----------------------------------------------------------------------------------------


async def madvise(cpu: PerCpu, start: int, advice: Advice, pages: int = 1) -> bool:
    """madvise with MADV_DONTNEED, MADV_FREE, MADV_COLD or MADV_PAGEOUT; false where there is no area."""
    return await do_madvise(cpu, _mm(cpu), start, start + pages, advice)


async def userfaultfd(cpu: PerCpu, start: int, pages: int = 1) -> bool:
    """UFFDIO_REGISTER for write-protection."""
    return await userfaultfd_register(cpu, _mm(cpu), start, start + pages)


async def writeprotect(cpu: PerCpu, start: int, on: bool = True, pages: int = 1) -> bool:
    """UFFDIO_WRITEPROTECT, or the end of it; false for what is not registered."""
    return await mwriteprotect_range(cpu, _mm(cpu), start, start + pages, on)


async def clear_soft_dirty(cpu: PerCpu, start: int = PAGE, pages: int = 1) -> None:
    """4 into /proc/PID/clear_refs: from here on writes are noticed."""
    await clear_refs_write(cpu, _mm(cpu), start, start + pages, CLEAR_REFS_SOFT_DIRTY)


async def ksm(cpu: PerCpu, page: int, into: int) -> bool:
    """ksmd merges two pages if they are equal."""
    return await try_to_merge_two_pages(cpu, _mm(cpu), page, into)


async def collapse(cpu: PerCpu, start: int) -> bool:
    """MADV_COLLAPSE of one huge page."""
    return await collapse_huge_page(cpu, _mm(cpu), start)


async def numa_scan(cpu: PerCpu, start: int = PAGE, pages: int = 1) -> int:
    """What NUMA balancing's scanner does with these pages: those of the slow node get hints."""
    return await change_prot_numa(cpu, _mm(cpu), start, start + pages)


async def migrate_range(cpu: PerCpu, start: int = PAGE, target: int = SLOW, pages: int = 1) -> int:
    """migrate_vma, as a driver does it, under mmap_read_lock."""
    await DownRead(mmap_lock(_mm(cpu)))
    moved = await migrate_vma(cpu, _mm(cpu), start, start + pages, target)
    await UpRead(mmap_lock(_mm(cpu)))
    return moved


async def reclaim(cpu: PerCpu, pfn: int = 1) -> bool:
    """kswapd reclaims one folio, of a file or of MADV_FREE; whether it has gone."""
    if not await FolioIsolateLru(pfn):
        return False
    kept = await shrink_file_folios(cpu, [pfn])
    for one in kept:
        cpu.count(KEPT)
        await FolioPutbackLru(one, False)
    return not kept


async def oom_reap(cpu: PerCpu, mm: int = MM, *starts: int) -> int:
    """The OOM reaper takes the areas that begin at these pages (PAGE) from a process that may still run."""
    return await oom_reap_task_mm(cpu, mm, starts or (PAGE,))


async def revoke_page(cpu: PerCpu, pfn: int = 1, at: int = PAGE, file: int = FILE, mm: int = MM) -> None:
    """A driver takes a page back that it has mapped (`Setup.driver_page`), and frees it."""
    await revoke(cpu, file, mm, at)
    await FolioPut(pfn)


async def pin(cpu: PerCpu, vpn: int = PAGE, write: bool = False) -> int:
    """pin_user_pages of one page (direct I/O, RDMA): its frame. kernel_read and kernel_write use it.

    As a program (`call(pin)`) the answer is dropped and the pin stays, for good: a leak at the end.
    """
    return await pin_user_pages_fast(cpu, _mm(cpu), vpn, write)


async def pin_if_mapped(cpu: PerCpu, vpn: int = PAGE, write: bool = False) -> int:
    """The same without a fault and without locks (pin_user_pages_fast_only); -1 where that fails."""
    return await pin_user_pages_fast_only(cpu, _mm(cpu), vpn, write)


async def get_page(cpu: PerCpu, vpn: int = PAGE, write: bool = False) -> int:
    """get_user_pages of one page: a reference that is no pin (ptrace, vmsplice, KVM)."""
    return await get_user_pages(cpu, _mm(cpu), vpn, write)


async def put(cpu: PerCpu, pfn: int) -> None:
    """put_page: the reference of `get_page` goes."""
    await put_page(pfn)


async def unpin(cpu: PerCpu, pfn: int, dirty: bool = False) -> None:
    """unpin_user_page; `dirty`: the page was written to (unpin_user_pages_dirty_lock)."""
    await (unpin_user_pages_dirty_lock(pfn) if dirty else unpin_user_page(pfn))


# --- files -----------------------------------------------------------------------------------------


async def write_file(cpu: PerCpu, file: int = FILE, pgoff: int = 0, value: int = 12) -> None:
    """write(2) to one page of a file, mapped or not."""
    await ext4_buffered_write_iter(cpu, file, pgoff, value)


async def msync(cpu: PerCpu, file: int = FILE, pgoff: int = 0, pages: int = 1) -> int:
    """msync(MS_SYNC), fsync: how many pages were written out."""
    return await filemap_write_and_wait_range(cpu, file, pgoff, pgoff + pages)


async def ftruncate(
    cpu: PerCpu,
    file: int = FILE,
    at: Mappings = ((MM, PAGE),),
    size: int = 0,
    pages: int = 1,
    cut: bool = False,
) -> int:
    """ftruncate to `size` pages of `pages`, mapped `at` (mm, page of the file's first one); how many went.

    Where files have sizes (`Setup.file_size`) it has as many as it has, and may grow. `cut`: it ends inside
    the last of them, whose version stands for what is behind that. Below 0 are tmpfs's.
    """
    if cpu.parameters.file_sizes:
        return await do_truncate(cpu, file, at, size, cut)
    return await truncate_pagecache(cpu, file, at, size, pages)


async def punch_hole(
    cpu: PerCpu, file: int = FILE, at: Mappings = ((MM, PAGE),), pgoff: int = 0, pages: int = 1
) -> int:
    """fallocate(FALLOC_FL_PUNCH_HOLE), mapped as of ftruncate."""
    if cpu.parameters.file_sizes:
        return await ext4_punch_hole(cpu, file, at, pgoff, pgoff + pages)
    return await truncate_pagecache_range(cpu, file, at, pgoff, pgoff + pages)


# --- tasks -----------------------------------------------------------------------------------------


async def tick(cpu: PerCpu) -> None:
    """A tick of the scheduler on this CPU, as user code sees it: an interrupt between two accesses."""
    await scheduler_tick(cpu)


async def policy_thread(cpu: PerCpu, number: int = 0) -> None:
    """A thread of the policy's own on this CPU, once round: what it waits for (`kthread_wait`) has to come.
    A policy without so many has nothing to do."""
    for body in cpu.policy.threads(cpu)[number : number + 1]:
        await body(cpu, cpu.current)


async def drop_mm(cpu: PerCpu, mm: int) -> None:
    """The last reference to an address space that `exits` has torn down is dropped."""
    await mmdrop(cpu, mm)


async def switch_to(cpu: PerCpu, mm: int = MM) -> None:
    """The part of a task switch that flushing sees: to a task of this address space."""
    await LocalIrqDisable()
    await cpu.mmu.switch_mm_irqs_off(cpu, mm)
    await LocalIrqEnable()


async def kernel_thread(cpu: PerCpu) -> None:
    """The same, to a kernel thread: this CPU is lazy now, until `switch_to`."""
    await LocalIrqDisable()
    await SmpMb()
    await cpu.mmu.enter_lazy_tlb(cpu)
    await LocalIrqEnable()
