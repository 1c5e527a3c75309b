"""Page-table pages: who frees, moves or shares one, and who still walks it.

Walkers are the hardware's, whose paging-structure caches keep upper entries until a flush, and the kernel's
own, which have nothing but interrupts off to hold a table by (get_user_pages_fast).
"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import (
    FilemapRemove,
    GetPmd,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    Unlock,
)
from emulator.hardware.pte import PSE
from emulator.kernel.gup import gup_pte_range, kernel_read, put_page
from emulator.kernel.hugetlb import unmap_hugepage_range
from emulator.kernel.khugepaged import collapse_huge_page, retract_page_tables
from emulator.kernel.kvm import vcpu_preempted
from emulator.kernel.mmap import do_munmap, mmap_region
from emulator.kernel.mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import i_mmap_lock, unmap_walked
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, Expectation, Litmus, Setup
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.litmus.answers import FREED_TABLE, RETURNED, REUSED, never, sometimes
from scenarios.litmus.starts import FILE, HUGE, PAGE, VERSION, Start
from scenarios.litmus.steps import bystander, call, read_if_cached, reuse
from scenarios.litmus.syscalls import switch_to

OTHER_MM = 2
TABLE = 0x200  # first page of a table, and how many pages one maps
NEW = 0x400
NEIGHBOUR = 0x600  # in another table, so that those above stay
WALKERS = ("walker_caches", True)
GUEST = ("paravirt_flush", True)
SYNCED = "tlb_remove_table_sync"
COLLAPSED = "thp_collapse_alloc"
PINNED = "litmus_pinned"
UNMAPPED = "litmus_unmapped"
UNSHARED = "hugetlb_unshared"
TABLE_MOVED = "mremap_moved_table"
RETRACTED = "litmus_retracted"
FOREIGN = "read of a frame that is not the page's"
FREE = "access to a free frame"


def in_guests_never(policy: str, *reached: str) -> Expectation:
    """As `never`, where there are guests of this kind: x86."""
    return never(policy, *reached)._replace(riscv=None)


def in_guests_sometimes(policy: str, *rules: str) -> Expectation:
    """As `sometimes`, likewise."""
    return sometimes(policy, *rules)._replace(riscv=None)


def one_in_a_table(*walked: int, lazy: bool = False) -> Start:
    """A page alone in its table, which the walkers of these CPUs know; `lazy`: they run kernel threads."""

    def start(setup: Setup) -> None:
        setup.area(TABLE, 1)
        setup.area(NEIGHBOUR, 1)
        setup.page(TABLE, version=VERSION)
        for cpu in walked:
            setup.walk(cpu, TABLE)
            if lazy:
                setup.lazily(cpu)

    return start


async def _unmap(cpu: PerCpu) -> None:
    cpu.count(UNMAPPED, await do_munmap(cpu, MM, TABLE, TABLE + 1))


# CPU 0                             CPU 1 has cached which table the page is in
# munmap: the entry, then the table
# go; IPI, all that it has of tables
#                                   handle the IPI
# free the table
#                                   walk ahead: from the root, and there is no table
FREED = Litmus(
    name="table-freed",
    question="munmap frees a page table: does a walker that has cached where it is walk it after that?",
    programs=(_unmap, bystander),
    setup=one_in_a_table(1),
    expected=(
        never("immediate", UNMAPPED),
        sometimes("mistake:zap-without-flush", FREED_TABLE, RETURNED),
        Expectation("mistake:tables-by-address", None, None, "Sometimes", (), (FREED_TABLE,)),
    ),
    drain=False,
    frugal=False,
    speculated=(TABLE,),
    settings=(WALKERS,),
)

# CPU 0, a virtual one              CPU 1
# munmap: the table goes; no page
# for a batch of tables
# flush; an interrupt for those who
# walk with interrupts off; free it
#                                   walk ahead
FREED_BY_GUEST = Litmus(
    name="table-freed-by-guest",
    question="A guest frees a page table when walkers without locks are through: are TLBs told before?",
    programs=(_unmap, bystander),
    setup=one_in_a_table(1),
    expected=(
        in_guests_never("immediate", UNMAPPED, SYNCED),
        in_guests_sometimes("mistake:tables-without-invalidation", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    speculated=(TABLE,),
    settings=(WALKERS, GUEST, ("table_batches", False)),
)


async def _gathers_too(cpu: PerCpu) -> None:
    """A kernel thread that takes an mm apart (oom_reaper) and finds nothing more."""
    await tlb_finish_mmu(cpu, await tlb_gather_mmu(MM))


# CPU 0, a virtual one              CPU 1 is lazy, knows the table, and gathers on the same mm
# munmap: the table goes
#                                   begin
# others gather: flush everything,
# and say that tables are freed
#                                   handle the IPI
# wait for walkers, free the table
NESTED = Litmus(
    name="table-freed-nested",
    question="Two gather on one mm, and one of them frees a page table: is every walker told?",
    programs=(_unmap, _gathers_too),
    setup=one_in_a_table(1, lazy=True),
    expected=(
        in_guests_never("immediate", UNMAPPED),
        in_guests_sometimes("mistake:nested-gather-forgets", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    speculated=(TABLE,),
    settings=(WALKERS, GUEST),
)


def two_to_collapse(*walked: int, lazy: bool = False) -> Start:
    """Two small pages that a huge one can take the place of; for the rest as above."""

    def start(setup: Setup) -> None:
        setup.area(PAGE, 2)
        setup.area(PAGE + 4, 2)
        setup.page(PAGE, version=VERSION)
        setup.page(PAGE + 1, version=VERSION)
        for cpu in walked:
            setup.walk(cpu, PAGE)
            if lazy:
                setup.lazily(cpu)

    return start


async def _collapses_and_unmaps(cpu: PerCpu) -> None:
    if await collapse_huge_page(cpu, MM, PAGE):
        await do_munmap(cpu, MM, PAGE, PAGE + 2)


# CPU 0                             CPU 1 is lazy, and knows the table
# collapse: flush, lazy or not
#                                   handle the IPI: leave the mm
# PMD = huge; the table is deposited
# munmap: free what was deposited
COLLAPSE_LAZY = Litmus(
    name="collapse-lazy",
    question="A page table makes room for a huge page and is freed with it: does a lazy CPU still walk it?",
    programs=(_collapses_and_unmaps, bystander),
    setup=two_to_collapse(1, lazy=True),
    expected=(never("immediate", COLLAPSED), sometimes("mistake:collapse-spares-the-lazy", FREED_TABLE)),
    drain=False,
    frugal=False,
    speculated=(PAGE,),
    fast=6,
    settings=(WALKERS, HUGE),
)


async def _pins_as_a_guest(cpu: PerCpu) -> None:
    """get_user_pages_fast_only, on a virtual CPU that loses its CPU in the middle of the walk."""
    await LocalIrqDisable()
    pmd = await GetPmd(MM, PAGE)
    if pmd and not pmd & PSE:
        await vcpu_preempted(cpu)
        pfn = await gup_pte_range(cpu, MM, PAGE, False, pmd)
        if pfn >= 0:
            cpu.count(PINNED)
            await put_page(pfn)
    await LocalIrqEnable()


# CPU 0 collapses                   CPU 1 pins a page, without locks
#                                   interrupts off; read the PMD
#                                   the host takes the CPU away
# flush: CPU 1 will, when it runs
# an interrupt to all, and wait
#                                   runs again: flush
#                                   read the entry in the table
#                                   interrupts on
#                                   handle the IPI
# PMD = huge; munmap frees the table
COLLAPSE_GUP = Litmus(
    name="collapse-gup-fast",
    question="A page table is collapsed while get_user_pages_fast walks it: is it freed under that?",
    programs=(_collapses_and_unmaps, _pins_as_a_guest),
    setup=two_to_collapse(),
    expected=(
        in_guests_never("immediate", COLLAPSED, PINNED, SYNCED),
        in_guests_sometimes("mistake:collapse-without-sync", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    fast=6,
    settings=(WALKERS, HUGE, GUEST),
)


def _shared_table(setup: Setup) -> None:
    """A page of PMDs of a hugetlb file that two processes share, and a huge page in it."""
    setup.area(TABLE, TABLE, file=FILE, shared=True, mm=OTHER_MM)
    setup.area(NEIGHBOUR, 1, mm=OTHER_MM)
    setup.area(TABLE, TABLE, file=FILE, shared=True)
    pfn = setup.page(TABLE, version=VERSION, exclusive=False, mm=OTHER_MM)
    setup.in_page_cache(pfn, FILE, 0)
    setup.table_pages.share(MM, TABLE, OTHER_MM, TABLE)
    setup.load(setup.cpus - 1, OTHER_MM)


def _shared_table_walked(setup: Setup) -> None:
    _shared_table(setup)
    setup.walk(1, TABLE)


async def _unmaps_shared(cpu: PerCpu) -> None:
    """unmap_hugepage_range of mm 1: what is shared is given up under the file's lock."""
    await Lock(i_mmap_lock(FILE))
    tlb = await tlb_gather_mmu(MM)
    await unmap_hugepage_range(cpu, tlb, TABLE)
    await Unlock(i_mmap_lock(FILE))
    await tlb_finish_mmu(cpu, tlb)


async def _unmaps_the_last(cpu: PerCpu) -> None:
    """munmap of mm 2: the last user's table goes with its pages; as long as it is shared nothing of that."""
    lock = i_mmap_lock(FILE)
    await Lock(lock)
    tlb = await tlb_gather_mmu(OTHER_MM)
    shared = await unmap_hugepage_range(cpu, tlb, TABLE)
    await Unlock(lock)
    await tlb_finish_mmu(cpu, tlb)
    if not shared:
        cpu.count(UNMAPPED, await do_munmap(cpu, OTHER_MM, TABLE, TABLE + TABLE))


# CPU 0 runs mm 1                   CPU 1 runs mm 1               CPU 2 runs mm 2, which shares the table
# unmap: unshare, IPI, under i_mmap
#                                   handle the IPI
#                                                                 munmap: nobody else has it; zap, free
#                                   walk ahead
UNSHARED_FLUSH = Litmus(
    name="hugetlb-unshare-flush",
    question="A shared page of PMDs is given up by one process and freed by the last: who still walks it?",
    programs=(_unmaps_shared, bystander, _unmaps_the_last),
    setup=_shared_table_walked,
    expected=(
        never("immediate", UNSHARED, UNMAPPED),
        sometimes("mistake:unshare-without-flush", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    speculated=(TABLE,),
    settings=(WALKERS,),
)


async def _punches_and_maps_anew(cpu: PerCpu) -> None:
    """Process 2 takes the file's page away, from both, and maps memory of its own in its place."""
    await Lock(i_mmap_lock(FILE))
    tlb = await tlb_gather_mmu(MM)
    unshared = await unmap_hugepage_range(cpu, tlb, TABLE)
    await tlb_finish_mmu(cpu, tlb)
    await Unlock(i_mmap_lock(FILE))
    if unshared:
        await mmap_region(cpu, OTHER_MM, TABLE, TABLE + 1, VM_READ | VM_WRITE)
        await user_write(cpu, TABLE, 11)


async def _pins_shared(cpu: PerCpu) -> None:
    """get_user_pages_fast_only of a huge page of hugetlb, on a virtual CPU that loses its CPU meanwhile."""
    pfn = -1
    await LocalIrqDisable()
    pud = await GetPmd(MM, TABLE)
    if pud:
        await vcpu_preempted(cpu)
        pfn = await gup_pte_range(cpu, MM, TABLE, False, pud, recheck=False)
    await LocalIrqEnable()
    if pfn >= 0:
        cpu.count(PINNED)
        await kernel_read(MM, TABLE, pfn)
        await put_page(pfn)


def _shared_with_cpu_0(setup: Setup) -> None:
    _shared_table(setup)
    setup.loaded[:] = [OTHER_MM, MM]


# CPU 0 runs mm 2                   CPU 1 runs mm 1, and pins a page without locks
#                                   interrupts off; read the upper entry
#                                   the host takes the CPU away
# unshare for mm 1; an interrupt to
# all, and wait
#                                   runs again; pin what is in the table
#                                   interrupts on, handle the IPI
# the table is mm 2's: map its own
# memory in the page's place
UNSHARED_GUP = Litmus(
    name="hugetlb-unshare-gup-fast",
    question="get_user_pages_fast walks a shared page of PMDs that is unshared: whose pages does it pin?",
    programs=(_punches_and_maps_anew, _pins_shared),
    setup=_shared_with_cpu_0,
    expected=(
        in_guests_never("immediate", UNSHARED, PINNED, SYNCED),
        in_guests_sometimes("mistake:unshare-without-sync", FOREIGN),
    ),
    drain=False,
    frugal=False,
    settings=(WALKERS, GUEST),
)


def _file_in_a_table(setup: Setup) -> None:
    """The first page of a file, mapped in a table of its own; another table is there as well."""
    setup.area(TABLE, TABLE, file=FILE, shared=True)
    setup.area(NEIGHBOUR, 1)
    setup.in_page_cache(setup.page(TABLE, version=VERSION, exclusive=False), FILE, 0)


async def _moves_the_table(cpu: PerCpu) -> None:
    await mremap_to(cpu, MM, TABLE, NEW, TABLE)


async def _reclaims_and_reads(cpu: PerCpu) -> None:
    """Reclaim a page by the mappings of its file, old area first; then use what this CPU has cached."""
    if await unmap_walked(cpu, MM, TABLE, FILE) or await unmap_walked(cpu, MM, NEW, FILE):
        cpu.count(UNMAPPED)
        if await FilemapRemove(FILE, 0, 1, 1):
            await reuse(cpu, FAST)
    await read_if_cached(cpu, NEW)


# CPU 0 moves a whole table         CPU 1 reclaims a page in it
#                                   rmap lock; the old PMD names the table
#                                   clear the entry, flush the old address
#                                   drop the rmap lock
# rmap lock; the PMD goes to its new
# address; flush the old one
#                                   free the page: who has it cached at the new address?
MOVED_TABLE = Litmus(
    name="mremap-table-reclaim",
    question="mremap moves a page table while a page in it is reclaimed: which address is flushed?",
    programs=(_moves_the_table, _reclaims_and_reads),
    setup=_file_in_a_table,
    expected=(
        never("immediate", TABLE_MOVED, UNMAPPED, REUSED),
        sometimes("mistake:table-moves-unlocked", FREE, FOREIGN),
    ),
    drain=False,
    frugal=False,
    speculated=(NEW,),
    fast=1,
    settings=(WALKERS,),
)


def _empty_table(setup: Setup) -> None:
    """A table for a file's pages, without any: they have been collapsed in the page cache."""
    setup.area(TABLE, TABLE, file=FILE, shared=True)
    setup.area(NEIGHBOUR, 1)
    setup.table_pages.make_table(MM, TABLE)


async def _moves_the_table_and_reads(cpu: PerCpu) -> None:
    await _moves_the_table(cpu)
    await user_read(cpu, NEW)


async def _retracts(cpu: PerCpu) -> None:
    cpu.count(RETRACTED, await retract_page_tables(cpu, FILE, ((MM, TABLE),)))


# CPU 0 moves a whole table         CPU 1 takes the table away (MADV_COLLAPSE by another process)
# the PMD names a table
#                                   clear the PMD, flush, free the table
# locks; the PMD is none: nothing to
# move
# read: fault, a table at the new address
RETRACTED_TABLE = Litmus(
    name="mremap-table-retracted",
    question="mremap has seen a page table that is taken away before it has the locks: what does it move?",
    programs=(_moves_the_table_and_reads, _retracts),
    setup=_empty_table,
    expected=(
        never("immediate", TABLE_MOVED, RETRACTED),
        sometimes("mistake:table-moves-unseen", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    settings=(WALKERS,),
)


# CPU 0                             CPU 1 has cached which table the page is in
#                                   switch to another mm: out of the mask
# munmap: the table goes; nobody is
# in the mask, so no IPI; free it
#                                   walk ahead: CR3 is the old one still
#                                   CR3 = the other mm
LEFT = Litmus(
    name="table-freed-while-left",
    question="A CPU is leaving an mm, out of its mask already, when a table is freed: does it still walk it?",
    programs=(_unmap, call(switch_to, OTHER_MM)),
    setup=one_in_a_table(1),
    expected=(sometimes("immediate", FREED_TABLE)._replace(riscv=None),),
    drain=False,
    frugal=False,
    speculated=(TABLE,),
    settings=(WALKERS,),
)

# The same from v6.14 on: the CPU stays in the mask, and who flushes looks what it runs.
LEFT_LAZILY = replace(
    LEFT,
    name="table-freed-while-left-lazily",
    question="The same where a CPU stays in the mask of an mm that it leaves (lazy_mm_cpumask).",
    expected=(in_guests_never("immediate", UNMAPPED),),
    settings=(WALKERS, ("lazy_mm_cpumask", True)),
)

# The same in a guest: the table waits until interrupts are on there, which is after CR3 has been written.
LEFT_IN_GUEST = replace(
    LEFT,
    name="table-freed-while-left-in-guest",
    question="The same in a guest, which frees its tables after an RCU grace period.",
    expected=(in_guests_never("immediate", UNMAPPED, SYNCED),),
    settings=(WALKERS, GUEST),
)
