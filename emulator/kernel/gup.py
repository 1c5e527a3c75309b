"""Pages that the kernel itself uses, by their frames and without a TLB (mm/gup.c, v6.6).

A reference keeps the frame from being freed, and its migration fails for as long as there are more than the
mappings account for. A pin is a reference of who reads or writes the page at any time (FOLL_PIN): the page
stays that of the mapping it was pinned by, so fork copies it, and what others have as well is copied first.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicOr,
    FolioMapping,
    FolioPut,
    FolioSetFlag,
    FolioTryGet,
    FolioTryPin,
    FolioUnpin,
    GetPmd,
    GetPte,
    GetPteIn,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    ReadFrame,
    Series,
    SmpRmb,
    Unlock,
    WriteFrame,
)
from emulator.hardware.pte import EXCLUSIVE, PRESENT, PSE, RW, ZERO_PFN, frame_of, pte_pfn, ptl
from emulator.kernel.memory import do_unshare, handle_mm_fault
from emulator.kernel.mmap_lock import mmap_read_lock, mmap_read_unlock
from emulator.kernel.percpu import PerCpu, has_pinned_word, write_protect_seq_word
from emulator.kernel.swap_state import SWAP_FILE
from emulator.memory.folios import PG_DIRTY


async def get_user_pages(cpu: PerCpu, mm: int, vpn: int, write: bool) -> int:
    """get_user_pages_fast of one page (FOLL_GET, gup_pte_range): its frame, with a reference for the caller.

    Raises SegmentationFault for what the areas do not allow, BusError for what is behind a file.
    """
    pte = await GetPte(mm, vpn)
    # PROT_NONE and migration entries are not PRESENT: both want a fault first.
    if pte & PRESENT and not (write and not pte & RW):
        # gup_huge_pmd: the reference is the whole folio's.
        pfn = frame_of(pte, vpn, cpu.parameters.hpage_order)
        if await FolioTryGet(pfn):
            # Without the page-table lock the page may have been unmapped before the reference was there:
            # then the frame may be somebody else's by now. If the entry still is the same, the reference
            # came first.
            if await GetPte(mm, vpn) == pte:
                return pfn
            await FolioPut(pfn)
    return await get_user_pages_unlocked(cpu, mm, vpn, write, False)


async def get_user_pages_unlocked(cpu: PerCpu, mm: int, vpn: int, write: bool, pins: bool) -> int:
    """__get_user_pages_locked of one page, by who holds no lock: mmap_lock for reading, also over its faults.

    Whoever changes areas comes before or after; with the area's lock alone nobody gets here (v6.1 to v6.12).
    With `pins` FOLL_PIN, else FOLL_GET.
    """
    await mmap_read_lock(mm)
    pfn = await _get_locked(cpu, mm, vpn, write, pins)
    await mmap_read_unlock(mm)
    return pfn


async def pin_user_pages_fast(cpu: PerCpu, mm: int, vpn: int, write: bool) -> int:
    """pin_user_pages_fast of one page: its frame, pinned (FOLL_PIN).

    Raises SegmentationFault for what the areas do not allow.
    """
    pfn = await pin_user_pages_fast_only(cpu, mm, vpn, write)
    if pfn < 0:
        # __gup_longterm_locked: fork is through, or comes after.
        pfn = await get_user_pages_unlocked(cpu, mm, vpn, write, True)
    return pfn


async def pin_user_pages_fast_only(cpu: PerCpu, mm: int, vpn: int, write: bool) -> int:
    """pin_user_pages_fast_only (internal_get_user_pages_fast), without locks: the frame, or -1.

    Who has begun before a fork may pin a page that fork has taken for one that nobody has pinned: so it fails
    where a fork is under way (write_protect_seq, since 57efa1fe5957, v5.11).
    """
    # mm_set_has_pinned_flag
    await AtomicOr(has_pinned_word(mm), 1)
    seq = await read_write_protect_seq(mm)
    await SmpRmb()
    if seq & 1:
        return -1
    pte = await GetPte(mm, vpn)
    if not pte & PRESENT or (write and not pte & RW):
        return -1
    pfn = frame_of(pte, vpn, cpu.parameters.hpage_order)
    if not await FolioTryPin(pfn):
        return -1
    same = await GetPte(mm, vpn) == pte and not (not write and await gup_must_unshare(pte))
    await SmpRmb()
    if same and await read_write_protect_seq(mm) == seq:
        return pfn
    await FolioUnpin(pfn)
    return -1


async def read_write_protect_seq(mm: int) -> int:
    """raw_read_seqcount of mm->write_protect_seq: odd while a fork is under way."""
    return await Load(write_protect_seq_word(mm))


async def _get_locked(cpu: PerCpu, mm: int, vpn: int, write: bool, pins: bool) -> int:
    """__get_user_pages: follow_page_pte under the page-table lock, and a fault where that finds nothing."""
    lock = ptl(mm, vpn)
    while True:
        _, pte = await Series((Lock(lock), GetPte(mm, vpn)))
        found = pte & PRESENT and not (write and not pte & RW)
        unshare = pins and found and not write and await gup_must_unshare(pte)
        if found and not unshare:
            pfn = frame_of(pte, vpn, cpu.parameters.hpage_order)
            await Series((FolioTryPin(pfn) if pins else FolioTryGet(pfn), Unlock(lock)))
            return pfn
        await Unlock(lock)
        if unshare:
            await do_unshare(cpu, mm, vpn, pte)
        elif not await handle_mm_fault(cpu, mm, vpn, write, True):
            await mmap_read_lock(mm)


async def gup_must_unshare(pte: int) -> bool:
    """gup_must_unshare: an anonymous page that is not this mapping's own is not pinned for reading: the first
    write of who maps it would part it from the pin."""
    if pte & EXCLUSIVE or pte_pfn(pte) == ZERO_PFN:
        return False
    slot = await FolioMapping(pte_pfn(pte))
    return not slot or slot[0] == SWAP_FILE


async def get_user_pages_fast_only(cpu: PerCpu, mm: int, vpn: int, write: bool) -> int:
    """get_user_pages_fast_only, lockless_pages_from_mm: the frame, with a reference; -1 asks for a fault.

    Table by table and without locks. Nothing but that interrupts are off keeps a table from being freed while
    it is walked: who frees one waits for an interrupt on every CPU, or for RCU.
    """
    await LocalIrqDisable()
    pmd = await GetPmd(mm, vpn)
    pfn = -1
    if pmd & PSE:
        pfn = await _gup_entry(cpu, mm, vpn, write, pmd)
    elif pmd:
        pfn = await gup_pte_range(cpu, mm, vpn, write, pmd)
    await LocalIrqEnable()
    return pfn


async def gup_pte_range(cpu: PerCpu, mm: int, vpn: int, write: bool, pmd: int, recheck: bool = True) -> int:
    """gup_pte_range of one page, in the table that `pmd` names: its frame, with a reference, or -1.

    The reference counts if the entry, and since 70cbc3cc78a9 (v6.1) the upper one, still is the same. Of a
    page of PMDs that processes share (hugetlb) nobody looks at the upper entry again (no `recheck`).
    """
    pte = await GetPteIn(mm, vpn, pmd)
    if not pte & PRESENT or (write and not pte & RW):
        return -1
    pfn = pte_pfn(pte)
    if not await FolioTryGet(pfn):
        return -1
    if (not recheck or await GetPmd(mm, vpn) == pmd) and await GetPteIn(mm, vpn, pmd) == pte:
        return pfn
    await FolioPut(pfn)
    return -1


async def _gup_entry(cpu: PerCpu, mm: int, vpn: int, write: bool, pmd: int) -> int:
    """gup_huge_pmd."""
    if not pmd & PRESENT or (write and not pmd & RW) or not await FolioTryGet(pte_pfn(pmd)):
        return -1
    if await GetPmd(mm, vpn) == pmd:
        return frame_of(pmd, vpn, cpu.parameters.hpage_order)
    await FolioPut(pte_pfn(pmd))
    return -1


async def put_page(pfn: int) -> None:
    """put_page: give the reference of `get_user_pages` back."""
    await FolioPut(pfn)


async def unpin_user_page(pfn: int) -> None:
    """unpin_user_page: the pin goes."""
    await FolioUnpin(pfn)


async def unpin_user_pages_dirty_lock(pfn: int) -> None:
    """unpin_user_pages_dirty_lock of one page that was written: the folio is dirty, then the pin goes."""
    await FolioSetFlag(pfn, PG_DIRTY)
    await unpin_user_page(pfn)


async def kernel_read(mm: int, vpn: int, pfn: int) -> int:
    """kmap_local_page and a read: the content version of a pinned frame, which was page `vpn` of `mm`."""
    return await ReadFrame(mm, vpn, pfn)


async def kernel_write(cpu: PerCpu, mm: int, vpn: int, pfn: int, value: int) -> None:
    """kmap_local_page and a write: `value` into a pinned frame, which was page `vpn` of `mm`.

    The frame must have been got for writing; its entry need not be writable any more.
    """
    await WriteFrame(mm, vpn, pfn, value)
