"""Unmapping ranges (mm/mmu_gather.c, mm/memory.c: zap_pte_range, v6.6): clear, flush, then free.

Frames gather while their entries are cleared and are given back only after the flush.
"""

from __future__ import annotations

from emulator.hardware.operations import FolioPut, MappedRange, Series, VmaRemove, XchgPte
from emulator.hardware.pte import pte_pfn, pte_present
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range

MAX_GATHER_PAGES = 512


async def unmap_page_range(cpu: PerCpu, mm: int, start: int, end: int, full_mm: bool = False) -> int:
    """unmap_page_range, tlb_finish_mmu: clear [start, end) and free; how many pages were mapped."""
    mapped = [vpn for vpn, _ in await MappedRange(mm, start, end)]
    freed = 0
    for at in range(0, len(mapped), MAX_GATHER_PAGES):
        part = mapped[at : at + MAX_GATHER_PAGES]
        old = await Series(tuple(XchgPte(mm, vpn, 0) for vpn in part))
        frames = [pte_pfn(pte) for pte in old if pte_present(pte)]
        if not frames:
            continue
        if full_mm:
            await flush_tlb_mm_range(cpu, mm, 0, TLB_FLUSH_ALL, freed_tables=True)
        else:
            await flush_tlb_mm_range(cpu, mm, part[0], part[-1] + 1, freed_tables=True)
        for pfn in frames:
            await FolioPut(pfn)
        freed += len(frames)
    return freed


async def exit_mmap(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...]) -> None:
    """exit_mmap: give up a whole address space, its areas [start, end) in pages."""
    for start, end in areas:
        await unmap_page_range(cpu, mm, start, end, full_mm=True)
        await VmaRemove(mm, start, end)
