"""Pages that the kernel itself uses, by their frames and without a TLB (mm/gup.c, v6.6).

A pin is one reference on the folio; it keeps the frame from being freed, and its migration fails for as
long as there are more references than the mappings account for.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FolioPut,
    FolioTryGet,
    GetPmd,
    GetPte,
    GetPteIn,
    LocalIrqDisable,
    LocalIrqEnable,
    ReadFrame,
    WriteFrame,
)
from emulator.hardware.pte import PRESENT, PSE, RW, frame_of, pte_pfn
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.percpu import PerCpu


async def get_user_pages(cpu: PerCpu, mm: int, vpn: int, write: bool) -> int:
    """get_user_pages_fast of one page (gup_pte_range): its frame, with a reference for the caller.

    Raises SegmentationFault for what the areas do not allow.
    """
    while True:
        pte = await GetPte(mm, vpn)
        # PROT_NONE and migration entries are not PRESENT: both want a fault first.
        if not pte & PRESENT or (write and not pte & RW):
            await handle_mm_fault(cpu, mm, vpn, write)
            continue
        # gup_huge_pmd: the reference is the whole folio's.
        pfn = frame_of(pte, vpn, cpu.parameters.hpage_order)
        if not await FolioTryGet(pfn):
            continue
        # Without the page-table lock the page may have been unmapped before the reference was there: then
        # the frame may be somebody else's by now. If the entry still is the same, the reference came first.
        if await GetPte(mm, vpn) == pte:
            return pfn
        await FolioPut(pfn)


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


async def unpin_user_page(pfn: int) -> None:
    """unpin_user_page: give the reference of `get_user_pages` back."""
    await FolioPut(pfn)


async def kernel_read(mm: int, vpn: int, pfn: int) -> int:
    """kmap_local_page and a read: the content version of a pinned frame, which was page `vpn` of `mm`."""
    return await ReadFrame(mm, vpn, pfn)


async def kernel_write(cpu: PerCpu, mm: int, vpn: int, pfn: int, value: int) -> None:
    """kmap_local_page and a write: `value` into a pinned frame, which was page `vpn` of `mm`.

    The frame must have been got for writing; its entry need not be writable any more.
    """
    await WriteFrame(mm, vpn, pfn, value)
