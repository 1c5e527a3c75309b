"""The kernel's own mappings: global entries, which no CR3 write drops, in tables that everybody has."""

from __future__ import annotations

from emulator.hardware.operations import FolioZero, Load, SmpRmb, SmpWmb, Store
from emulator.hardware.pte import KERNEL_PAGE
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import INIT_MM, PerCpu
from emulator.kernel.vmalloc import kernel_page_read, pmd_free_pte_page, purge_vmap_area_lazy, vfree, vmap
from emulator.machine.litmus import FAST, MM, Litmus, Setup
from scenarios.litmus.answers import FREED_TABLE, never, sometimes
from scenarios.litmus.starts import VERSION
from scenarios.litmus.steps import bystander, flush_for_own_reasons, in_order

VADDR = KERNEL_PAGE + 0x200
FREED = "litmus_table_freed"
MAPPED = "litmus_mapped_again"
FREE = "access to a free frame"
FOREIGN = "read of a frame that is not the page's"
AGAIN = "litmus.mapped_again"
WALKERS = ("walker_caches", True)


def _empty_table(setup: Setup) -> None:
    """A table of the kernel's whose entries have been unmapped, and which CPU 1, or a device, has walked."""
    setup.table_pages.make_table(INIT_MM, VADDR)
    setup.walk(1, VADDR, INIT_MM)


async def _makes_room(cpu: PerCpu) -> None:
    cpu.count(FREED, await pmd_free_pte_page(cpu, VADDR))


# CPU 0                             CPU 1 has cached which table the page is in
# ioremap of a huge page: clear the
# PMD, flush on every CPU
#                                   handle the IPI
# free the table
#                                   walk ahead: there is no table
IOREMAP = Litmus(
    name="ioremap-table",
    question="A huge mapping of the kernel takes the place of a table, which is freed: who still walks it?",
    programs=(_makes_room, bystander),
    setup=_empty_table,
    expected=(never("immediate", FREED), sometimes("mistake:ioremap-without-purge", FREED_TABLE)),
    drain=False,
    frugal=False,
    speculated=(VADDR,),
    settings=(WALKERS,),
)

# CPU 0                             a device that walks the CPUs' tables
# clear the PMD, flush on every CPU;
# a command to every device
#                                   drop it
# free the table
#                                   walk ahead: there is no table
TABLE_OF_DEVICE = Litmus(
    name="kernel-table-device",
    question="A device walks the CPUs' page tables: is it told when one of the kernel's is freed?",
    programs=(_makes_room, bystander),
    setup=_empty_table,
    expected=(
        never("immediate", FREED)._replace(riscv=None),
        sometimes("mistake:kernel-tables-untold", FREED_TABLE)._replace(riscv=None),
    ),
    drain=False,
    frugal=False,
    speculated=(VADDR,),
    settings=(WALKERS, ("devices", ((1, MM),))),
)


def _mapped(setup: Setup) -> None:
    """A page that the kernel has mapped, and CPU 1 cached."""
    setup.area(VADDR, 1, mm=INIT_MM)
    setup.page(VADDR, writable=True, dirty=True, exclusive=False, version=VERSION, mm=INIT_MM, cached=(1,))


async def _frees_and_maps_again(cpu: PerCpu) -> None:
    pfn = await alloc_pages(cpu, 0, (FAST,))
    await FolioZero(pfn)
    await vfree(cpu, VADDR)
    await purge_vmap_area_lazy(cpu, VADDR, VADDR + 1)
    await vmap(cpu, VADDR, pfn)
    await SmpWmb()
    await Store(AGAIN, 1)


async def _reads_what_is_there_again(cpu: PerCpu) -> None:
    if await Load(AGAIN):
        await SmpRmb()
        cpu.count(MAPPED)
        await kernel_page_read(cpu, VADDR)


# CPU 0                             CPU 1 has the address cached, as a global entry
# vfree: unmap, free the page
# purge: an IPI to all
#                                   INVLPG
# map another page there
#                                   (writes CR3)
#                                   read: the other page
VMALLOC = Litmus(
    name="vmalloc-again",
    question="An address of vmalloc is used again: has a CPU that has written CR3 what was there?",
    programs=(_frees_and_maps_again, in_order(flush_for_own_reasons, _reads_what_is_there_again)),
    setup=_mapped,
    expected=(
        never("immediate", MAPPED),
        sometimes("mistake:vmalloc-without-purge", FREE, FOREIGN),
        sometimes("mistake:purges-by-cr3", FREE, FOREIGN)._replace(riscv=None),
    ),
    drain=False,
    frugal=False,
    settings=(WALKERS,),
)

# The same on CPUs whose INVLPG leaves global entries while PCIDs are used (Alder Lake and others).
INVLPG_MISS = Litmus(
    name="vmalloc-again-invlpg-miss",
    question="The same where INVLPG leaves global entries while PCIDs are used: are they used?",
    programs=(_frees_and_maps_again, _reads_what_is_there_again),
    setup=_mapped,
    expected=(
        never("immediate", MAPPED)._replace(riscv=None),
        sometimes("mistake:pcids-in-spite-of-invlpg", FREE, FOREIGN)._replace(riscv=None),
    ),
    drain=False,
    frugal=False,
    settings=(WALKERS, ("invlpg_miss", True)),
)
