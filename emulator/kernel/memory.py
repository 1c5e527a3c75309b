"""Page faults (mm/memory.c, v6.6): demand paging, copy-on-write, NUMA hints.

A fault looks at the entry without a lock, takes the page-table lock, looks again (pte_same), and decides
under it; what takes long is done without it, and then it looks again. If the entry is another by then, it
drops its work and the access is retried. Where nothing but the entry decides, CmpxchgPte is all of that in
one step.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    DownRead,
    FilemapAdd,
    FilemapGet,
    FilemapRemove,
    FindVma,
    FolioCopy,
    FolioGet,
    FolioMapping,
    FolioPut,
    FolioRefcount,
    FolioTestFlag,
    FolioZero,
    GetPte,
    Load,
    Lock,
    LockVma,
    LruAdd,
    MappedRange,
    PmdRange,
    ReleaseFaultLock,
    Series,
    SetPte,
    Unlock,
    UpRead,
    WaitPte,
    XchgPte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    UFFD_WP,
    ZERO_PFN,
    is_migration_entry,
    is_swap_entry,
    mk_pte,
    pte_pfn,
    pte_protnone,
    ptl,
)
from emulator.kernel.fair import should_numa_migrate_memory, task_numa_fault
from emulator.kernel.huge_memory import do_huge_pmd_anonymous_page, do_huge_pmd_wp_page, split_huge_pmd
from emulator.kernel.migrate import folio_order, migrate_misplaced_folio
from emulator.kernel.mmap_lock import mmap_read_lock, mmap_read_unlock
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.mprotect import can_change_pte_writable, vma_wants_writenotify
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu, folio_lock, i_size_word, invalidate_lock, tlb_flush_pending_word
from emulator.kernel.pgtable_generic import FAULT, NUMA, WP, ptep_clear_flush, set_pte_at
from emulator.kernel.swap_state import SWAP_FILE
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.memory.folios import PG_KSM
from emulator.memory.page_table import VM_SHARED, VM_UFFD_WP, VM_WRITE, Vma

ANONYMOUS = 0


class SegmentationFault(Exception):
    """A program used an address outside its areas, or wrote where it may not (SIGSEGV)."""


class BusError(Exception):
    """A program used a page of an area that is behind the end of the area's file (SIGBUS)."""


async def handle_mm_fault(cpu: PerCpu, mm: int, vpn: int, write: bool, mmap_locked: bool = False) -> bool:
    """handle_mm_fault, do_user_addr_fault: make progress on one fault; the access is then tried again.

    With `mmap_locked` it is get_user_pages that faults (faultin_page), holding mmap_lock for reading and no
    area's lock. Answers whether it still holds it: who waits for a userfaultfd's monitor does not, nor who
    is refused.
    Raises SegmentationFault for an access that the areas do not allow, BusError for one behind the file.
    """
    cpu.count("pgfault")
    # The PMD first, then the entry below it, if that is no huge page's.
    head = cpu.parameters.hpage_head(vpn)
    whole = not cpu.parameters.per_vma_locks
    locks = cpu.parameters.fault_locks and not mmap_locked
    find = LockVma(mm, vpn, whole) if locks else FindVma(mm, vpn)
    found, pte = await Series((find, GetPte(mm, head)))
    vma = Vma(*found) if found else None
    release = ReleaseFaultLock(mm, vma.start, whole) if vma and locks else None
    if vma is None or not vma.accessible or (write and not vma.flags & VM_WRITE):
        if release:
            await release
        if mmap_locked:
            await mmap_read_unlock(mm)
        lacking = "write permission" if vma and vma.accessible else "any permission"
        raise SegmentationFault(
            f"CPU {cpu.number}: {'write to' if write else 'read of'} page {vpn:#x} of mm {mm}, "
            f"{'outside every area' if vma is None else f'in an area without {lacking}'}"
        )
    if pte & PSE:
        vpn = head
    elif vpn != head:
        pte = await GetPte(mm, vpn)
    inside = True
    if pte == 0:
        if not await do_huge_pmd_anonymous_page(cpu, mm, vpn, write, vma):
            inside = await do_no_page(cpu, mm, vpn, write, vma)
    elif is_swap_entry(pte):
        await do_swap_page(cpu, mm, vpn, pte, write)
    elif is_migration_entry(pte):
        # migration_entry_wait
        await WaitPte(mm, vpn, pte)
    elif pte_protnone(pte):
        # do_huge_pmd_numa_page does the same to a PMD.
        await do_numa_page(cpu, mm, vpn, pte, vma)
    elif write and pte & UFFD_WP:
        # handle_userfault: until the monitor has taken the protection back, and without the lock.
        if release:
            await release
        if mmap_locked:
            await mmap_read_unlock(mm)
        await WaitPte(mm, vpn, pte)
        return False
    elif write and not pte & RW and pte & PSE:
        await do_huge_pmd_wp_page(cpu, mm, vpn, pte)
    elif write and not pte & RW:
        await do_wp_page(cpu, mm, vpn, pte, vma)
    # Else another CPU has resolved it meanwhile: a spurious fault.
    await cpu.policy.fault_end(cpu, mm, vma, write)
    if release:
        await release
    if not inside:
        if mmap_locked:
            await mmap_read_unlock(mm)
        raise BusError(f"CPU {cpu.number}: page {vpn:#x} of mm {mm} is behind the end of file {vma.file}")
    return True


async def _map(cpu: PerCpu, mm: int, vpn: int, pfn: int, flags: int) -> None:
    """Map a frame where nothing is mapped; the mapping takes over the caller's reference."""
    if seen := await set_pte_at(cpu, CmpxchgPte(mm, vpn, 0, mk_pte(pfn, flags)), FAULT):
        await FolioPut(pfn)
        await cpu.policy.entry_changed(cpu, mm, vpn, 0, seen)


async def pte_alloc(cpu: PerCpu, mm: int, vpn: int) -> None:
    """pte_alloc: where there is no page table yet, a frame for one, GFP_PGTABLE_USER.

    The slow tier's memory is movable, so that a full fast tier means the slow path, which wakes its kswapd:
    what user memory alone, which goes on in the slow tier, does not. (The frame is kept to the end.)
    """
    if not await PmdRange(mm, vpn, vpn + 1):
        cpu.page_tables.append(await alloc_pages(cpu, 0, (FAST_NODE,)))


async def do_no_page(cpu: PerCpu, mm: int, vpn: int, write: bool, vma: Vma) -> bool:
    """do_anonymous_page, do_read_fault, do_cow_fault or do_shared_fault; false for what is behind the end of
    its file (VM_FAULT_SIGBUS)."""
    if cpu.parameters.page_table_frames:
        await pte_alloc(cpu, mm, vpn)
    writable = PRESENT | ACCESSED | RW | DIRTY
    if vma.file == ANONYMOUS:
        if not write and not cpu.parameters.forbids_zeropage:
            zero = CmpxchgPte(mm, vpn, 0, mk_pte(ZERO_PFN, PRESENT | ACCESSED))
            if seen := await set_pte_at(cpu, zero, FAULT):
                await cpu.policy.entry_changed(cpu, mm, vpn, 0, seen)
            return True
        pfn = await alloc_pages(cpu, 0)
        await FolioZero(pfn)
        await LruAdd(pfn, False)
        await _map(cpu, mm, vpn, pfn, (writable if write else PRESENT | ACCESSED) | EXCLUSIVE)
        return True
    pgoff = vma.linear_page_index(vpn)
    sized = cpu.parameters.file_sizes
    if sized and await i_size_read(vma.file) <= pgoff:
        return False
    pfn = await filemap_fault(cpu, vma.file, pgoff)
    if sized or not write or vma.flags & VM_SHARED:
        # Mapped under the folio's lock, and only if it still is the file's: a truncation that unmaps it and
        # then takes it away finds either the mapping or no more of them.
        lock = folio_lock(vma.file, pgoff)
        _, slot = await Series((Lock(lock), FolioMapping(pfn)))
        # Another folio may be there, and behind the end of the file: the size is looked at again.
        if slot != (vma.file, pgoff) or (sized and await i_size_read(vma.file) <= pgoff):
            await FolioPut(pfn)
        elif write and not vma.flags & VM_SHARED:
            await do_cow_fault(cpu, mm, vpn, pfn)
        elif write:
            await cpu.policy.mapped_writable(cpu, pfn)
            await _map(cpu, mm, vpn, pfn, writable)
        else:
            # vm_page_prot
            at_once = vma.flags & VM_SHARED and vma.flags & VM_WRITE and not vma_wants_writenotify(vma)
            await _map(cpu, mm, vpn, pfn, PRESENT | ACCESSED | (RW if at_once else 0))
        await Unlock(lock)
    else:
        await do_cow_fault(cpu, mm, vpn, pfn)
    return True


async def do_cow_fault(cpu: PerCpu, mm: int, vpn: int, pfn: int) -> None:
    """do_cow_fault, once the file's page is found: a private copy of it is mapped, its reference goes.

    The folio stays locked until then; only where files have sizes (`file_sizes`) anybody can tell.
    """
    copy = await alloc_pages(cpu, 0)
    await FolioCopy(pfn, copy)
    await LruAdd(copy, False)
    await FolioPut(pfn)
    await _map(cpu, mm, vpn, copy, PRESENT | ACCESSED | RW | DIRTY | EXCLUSIVE)


async def i_size_read(file: int) -> int:
    """i_size_read, in pages."""
    return await Load(i_size_word(file))


async def do_swap_page(cpu: PerCpu, mm: int, vpn: int, pte: int, write: bool) -> None:
    """do_swap_page: read the page in again; nothing is flushed for it.

    What fork has shared is copied by the next fault, if this one writes.
    """
    slot = pte_pfn(pte)
    pfn = await alloc_pages(cpu, 0)
    present = await FilemapAdd(SWAP_FILE, slot, pfn)
    if present >= 0:
        # Somebody else is reading it in.
        await FolioPut(pfn)
        pfn = present
    else:
        cpu.count("pswpin")
        await LruAdd(pfn, False)
    flags = PRESENT | ACCESSED | pte & (EXCLUSIVE | UFFD_WP)
    if write and flags & (EXCLUSIVE | UFFD_WP) == EXCLUSIVE:
        flags |= RW | DIRTY
    lock = ptl(mm, vpn)
    _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
    if seen == pte:
        await set_pte_at(cpu, XchgPte(mm, vpn, mk_pte(pfn, flags)), FAULT)
    else:
        await FolioPut(pfn)
    await Unlock(lock)
    # should_try_to_free_swap, unless somebody uses it there: the mapping's reference and the cache's.
    await FilemapRemove(SWAP_FILE, slot, pfn, 2)


async def try_to_unuse(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """swapoff, by pages [start, end) of an mm (unuse_mm, unuse_pte): all that is out is read in again.

    Nothing is flushed for it. (Entries are old then in Linux.)
    """
    await mmap_read_lock(mm)
    for vpn, entry in await MappedRange(mm, start, end):
        if is_swap_entry(entry):
            await do_swap_page(cpu, mm, vpn, entry, False)
    await mmap_read_unlock(mm)


async def filemap_fault(cpu: PerCpu, file: int, pgoff: int) -> int:
    """filemap_fault: the page-cache frame, read in if need be, with a reference for the caller."""
    pfn = await FilemapGet(file, pgoff)
    if pfn >= 0:
        return pfn
    if cpu.parameters.file_sizes:
        await filemap_invalidate_lock_shared(file)
    pfn = await alloc_pages(cpu, 0)
    await FolioZero(pfn)
    present = await FilemapAdd(file, pgoff, pfn)
    if present >= 0:
        await FolioPut(pfn)
        pfn = present
    else:
        cpu.count("pgmajfault")
        await LruAdd(pfn, False)
    if cpu.parameters.file_sizes:
        await filemap_invalidate_unlock_shared(file)
    return pfn


async def filemap_invalidate_lock_shared(file: int) -> None:
    """filemap_invalidate_lock_shared (v5.15, 730633f0b7f9; before, each file system had its own)."""
    await DownRead(invalidate_lock(file))


async def filemap_invalidate_unlock_shared(file: int) -> None:
    """filemap_invalidate_unlock_shared."""
    await UpRead(invalidate_lock(file))


async def do_wp_page(cpu: PerCpu, mm: int, vpn: int, pte: int, vma: Vma) -> None:
    """do_wp_page: a write through a read-only entry. Reuse the page if it is ours alone, else copy.

    handle_pte_fault has looked again (pte_same) under the page-table lock, and do_wp_page decides under it;
    the copy is made without it.
    """
    pfn = pte_pfn(pte)
    lock = ptl(mm, vpn)
    _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
    if seen != pte:
        await Unlock(lock)
        await cpu.policy.entry_changed(cpu, mm, vpn, pte, seen)
        return
    if vma.flags & VM_UFFD_WP and await Load(tlb_flush_pending_word(mm)):
        # userfaultfd has taken the right and has not flushed: nobody may write to what is copied here.
        await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
    if pfn == ZERO_PFN:
        await Unlock(lock)
        await wp_page_copy(cpu, mm, vpn, pte)
        return
    await cpu.policy.before_writable(cpu, pfn)
    anonymous = vma.file == ANONYMOUS or pte & EXCLUSIVE
    reuse = vma.flags & VM_SHARED or pte & EXCLUSIVE or (anonymous and await FolioRefcount(pfn) == 1)
    if reuse and cpu.parameters.ksm and await FolioTestFlag(pfn, PG_KSM):
        reuse = False
    if reuse:
        # wp_page_reuse: more rights need no flush; a CPU with the old entry faults and finds the new.
        # page_move_anon_rmap: nobody else has the page any more.
        own = 0 if vma.flags & VM_SHARED else EXCLUSIVE
        await set_pte_at(cpu, CmpxchgPte(mm, vpn, pte, pte | RW | DIRTY | ACCESSED | own), WP)
        await Unlock(lock)
        return
    await Series((FolioGet(pfn), Unlock(lock)))
    await wp_page_copy(cpu, mm, vpn, pte)


async def do_unshare(cpu: PerCpu, mm: int, vpn: int, pte: int) -> None:
    """do_wp_page with FAULT_FLAG_UNSHARE: the anonymous page is this mapping's own from now on, or a copy is.

    Either stays read-only.
    """
    if pte & PSE:
        await split_huge_pmd(cpu, mm, cpu.parameters.hpage_head(vpn))
        return
    pfn = pte_pfn(pte)
    lock = ptl(mm, vpn)
    _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
    if seen != pte:
        await Unlock(lock)
    elif await FolioRefcount(pfn) == 1 and not await FolioTestFlag(pfn, PG_KSM):
        await set_pte_at(cpu, CmpxchgPte(mm, vpn, pte, pte | EXCLUSIVE), WP)
        await Unlock(lock)
    else:
        await Series((FolioGet(pfn), Unlock(lock)))
        await wp_page_copy(cpu, mm, vpn, pte, unshare=True)


async def wp_page_copy(cpu: PerCpu, mm: int, vpn: int, pte: int, unshare: bool = False) -> None:
    """wp_page_copy: a private copy takes the page's place; no CPU may read the old page after that.

    Of the zero page that is a page of zeros. Else the caller's reference on the old folio, which goes here,
    keeps it from being moved or freed while it is copied. Whether it still is the page is seen under the lock
    (pte_same). Who only `unshare`s does not write: the copy stays read-only.
    """
    old = pte_pfn(pte)
    copy = await alloc_pages(cpu, 0)
    await (FolioZero(copy) if old == ZERO_PFN else FolioCopy(old, copy))
    await LruAdd(copy, False)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_start(cpu, mm, vpn, vpn + 1)
        await _replace_by_copy(cpu, mm, vpn, pte, copy, unshare)
        await mmu_notifier_invalidate_range_end(cpu, mm, vpn, vpn + 1)
    else:
        await _replace_by_copy(cpu, mm, vpn, pte, copy, unshare)


async def _replace_by_copy(cpu: PerCpu, mm: int, vpn: int, pte: int, copy: int, unshare: bool) -> None:
    old = pte_pfn(pte)
    lock = ptl(mm, vpn)
    _, seen, found = await Series((Lock(lock), GetPte(mm, vpn), FindVma(mm, vpn)))
    if seen != pte or not found or not (unshare or Vma(*found).flags & VM_WRITE):
        await Unlock(lock)
        await FolioPut(copy)
        if old != ZERO_PFN:
            await FolioPut(old)
        await cpu.policy.entry_changed(cpu, mm, vpn, pte, seen)
        return
    # Everybody must miss before the copy can be written.
    await ptep_clear_flush(cpu, mm, vpn)
    flags = PRESENT | ACCESSED | EXCLUSIVE | (0 if unshare else RW | DIRTY)
    await set_pte_at(cpu, SetPte(mm, vpn, mk_pte(copy, flags)), WP)
    await Unlock(lock)
    cpu.count("pgcow")
    if old != ZERO_PFN:
        await FolioPut(old)
        await FolioPut(old)


async def do_numa_page(cpu: PerCpu, mm: int, vpn: int, pte: int, vma: Vma) -> None:
    """do_numa_page: a NUMA hint fault. Promote the folio, or give the access back where it is.

    An entry that stays gets its write permission back if its page is exclusive (can_change_pte_writable). One
    that moves comes back read-only,
    because PROT_NONE dropped it, and so does one whose move failed (do_numa_page of v6.4-6.6: `writable =
    false` before the attempt).
    """
    cpu.count("numa_hint_faults")
    pfn = pte_pfn(pte)
    if cpu.parameters.nid(pfn) == FAST_NODE:
        cpu.count("numa_hint_faults_local")
    elif await should_numa_migrate_memory(cpu, pfn):
        # numa_migrate_prep: a reference, while the lock and the entry keep the folio. A page of a huge one
        # whose PMD was split stays (PageCompound: goto out_map).
        lock = ptl(mm, vpn)
        _, seen = await Series((Lock(lock), GetPte(mm, vpn)))
        if seen != pte:
            await Unlock(lock)
            return
        if not pte & PSE and await folio_order(cpu, pfn):
            await Unlock(lock)
        else:
            await Series((FolioGet(pfn), Unlock(lock)))
            if await migrate_misplaced_folio(cpu, pfn, FAST_NODE):
                await task_numa_fault(cpu, mm, vma.end - vma.start)
                return
        await set_pte_at(cpu, CmpxchgPte(mm, vpn, pte, pte & ~PROTNONE | PRESENT | ACCESSED), NUMA)
        return
    restored = pte & ~PROTNONE | PRESENT | ACCESSED
    if not vma.flags & VM_SHARED and can_change_pte_writable(vma, vma.flags, restored):
        await cpu.policy.mapped_writable(cpu, pfn)
        restored |= RW
        cpu.count("numa_writable")
    await set_pte_at(cpu, CmpxchgPte(mm, vpn, pte, restored), NUMA)
