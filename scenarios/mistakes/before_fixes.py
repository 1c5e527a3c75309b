"""The kernel before a fix: each is mainline but for the code that the commit in its name has changed."""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicOr,
    DownRead,
    FolioPut,
    FolioSetFlag,
    GetPte,
    Load,
    LoadCr3,
    Lock,
    SendIpi,
    SetPte,
    SmpMb,
    Store,
    Unlock,
    UpRead,
    XchgPte,
)
from emulator.hardware.pte import PSE, mmap_lock, ptl
from emulator.kernel.fork import dup_mmap
from emulator.kernel.huge_memory import pmdp_clear_bits, pmdp_invalidate
from emulator.kernel.instead import instead_of
from emulator.kernel.ksm import write_protect_page
from emulator.kernel.memory import (
    do_wp_page,
    filemap_invalidate_lock_shared,
    filemap_invalidate_unlock_shared,
)
from emulator.kernel.migrate_device import migrate_vma_collect_pmd
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmu_gather import (
    MmuGather,
    tlb_finish_mmu,
    tlb_flush_mmu,
    tlb_flush_mmu_tlbonly,
    tlb_gather_mmu,
    unmap_vmas,
)
from emulator.kernel.mprotect import (
    can_change_pte_writable,
    change_prot_numa,
    protnone,
    vma_soft_dirty_enabled,
    vma_wants_writenotify,
)
from emulator.kernel.mremap import move_page_tables
from emulator.kernel.oom_kill import oom_reap_task_mm
from emulator.kernel.pageout import flush_and_free
from emulator.kernel.percpu import LOADED_MM_SWITCHING, PerCpu, tlb_flush_batched_word
from emulator.kernel.pgtable_generic import pte_accessible
from emulator.kernel.rmap import flush_tlb_batched_pending, set_tlb_ubc_flush_pending, try_to_unmap_flush
from emulator.kernel.smp import on_each_cpu_cond_mask
from emulator.kernel.task_mmu import clear_refs_write
from emulator.kernel.tlb import (
    TLB_FLUSH_ALL,
    flush_tlb_mm,
    flush_tlb_range,
)
from emulator.memory.page_table import Vma
from emulator.policies.immediate import Immediate

NOT_PENDING = 0
NO_MM = -2
FEW_CPUS = 2
ALONE = 1


class NobodyAsks(Immediate):
    """mm/mprotect.c, memory.c, madvise.c, mremap.c before 3ea277194daa (v4.13): no flush_tlb_batched_pending.

    An entry that reclaim has cleared asks for no flush, and CPUs use it until reclaim flushes.
    """

    name = "mistake:before-3ea277194daa"

    @instead_of(flush_tlb_batched_pending)
    async def asks_nobody(self, cpu: PerCpu, mm: int) -> None:
        """What reclaim owes is its own affair."""


class GathersAlone(Immediate):
    """mm/memory.c, tlb_finish_mmu before 99baac21e458 (v4.13): no mm_tlb_flush_nested.

    Who finds entries gone or clean already flushes nothing, and returns before who made them so has flushed.
    """

    name = "mistake:before-99baac21e458"

    @instead_of(Load, within=tlb_finish_mmu)
    async def pending(self, word: str) -> int:
        """As if nobody else gathered."""
        return ALONE


class MigratesBesideTheScanner(Immediate):
    """pte_accessible of x86 before 20841405940e (v3.13): an inaccessible entry is in no TLB.

    The scanner has made it so and has not flushed; CPUs still write through what they have cached.
    """

    name = "mistake:before-20841405940e"

    @instead_of(Load, within=pte_accessible)
    async def pending(self, word: str) -> int:
        """No flush of the mm is pending."""
        return NOT_PENDING


class MergesWhatIsPending(Immediate):
    """mm/ksm.c, write_protect_page before b3a81d0841a9 (v4.13): an entry that is neither writable nor dirty
    is not flushed for, though others may have made it so and still owe the flush."""

    name = "mistake:before-b3a81d0841a9"

    @instead_of(Load, within=write_protect_page)
    async def pending(self, word: str) -> int:
        """No flush of the mm is pending."""
        return NOT_PENDING


class CopiesBeforeItFlushes(Immediate):
    """mm/memory.c, do_wp_page before 6ce64428d620 (v5.12): no flush before the copy where userfaultfd's
    write-protection is still to be flushed for."""

    name = "mistake:before-6ce64428d620"

    @instead_of(Load, within=do_wp_page)
    async def pending(self, word: str) -> int:
        """No flush of the mm is pending."""
        return NOT_PENDING


class EmptyGatherFlushesNothing(Immediate):
    """fs/proc/task_mmu.c, clear_refs_write before 912efa17e512 (v5.12): a gather around soft-dirty tracking.

    Nothing is put into it, so that it has nothing to flush (0758cd830494, v5.6).
    """

    name = "mistake:before-912efa17e512"

    async def flush_changed(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        """The flush of everything, which is clear_refs', is none."""
        if end != TLB_FLUSH_ALL:
            await super().flush_changed(cpu, mm, start, end, stride, freed_tables)


class GivesBackWhatIsTracked(Immediate):
    """mm/mprotect.c, can_change_pte_writable before 76aefad628aa (v6.0): who tracks is not asked."""

    name = "mistake:before-76aefad628aa"

    @instead_of(vma_soft_dirty_enabled, within=can_change_pte_writable)
    def tracked(self, vma: Vma) -> bool:
        """The wrong way round."""
        return False


class MapsWritableWhatIsTracked(Immediate):
    """mm/mmap.c, vma_wants_writenotify before 64e455079e1b (v3.18): shared memory without a file behind it is
    writable at once, tracked or not."""

    name = "mistake:before-64e455079e1b"

    @instead_of(vma_soft_dirty_enabled, within=vma_wants_writenotify)
    def tracked(self, vma: Vma) -> bool:
        """Nobody asks."""
        return False


class ForgetsWhatCameMeanwhile(Immediate):
    """mm/rmap.c, flush_tlb_batched_pending before 5ee2fa2f0636 (v5.17): one flag, cleared after the flush.

    What is unmapped while it flushes sets the flag as well, and nobody flushes for that.
    """

    name = "mistake:before-5ee2fa2f0636"

    @instead_of(flush_tlb_batched_pending)
    async def one_flag(self, cpu: PerCpu, mm: int) -> None:
        """Flushes if the flag is set, then clears it."""
        word = tlb_flush_batched_word(mm)
        if await Load(word):
            await flush_tlb_mm(cpu, mm)
            await Store(word, 0)


class LosesTheDirtyBit(Immediate):
    """mm/migrate_device.c, migrate_vma_collect_pmd before fd35ca3d12cc (v6.1): what the entry knew of
    being written goes with it.

    The page is clean at its new place, and reclaim drops it with what was written.
    """

    name = "mistake:before-fd35ca3d12cc"

    @instead_of(FolioSetFlag, within=migrate_vma_collect_pmd)
    async def dirty(self, pfn: int, flag: int) -> None:
        """folio_mark_dirty, which was not there."""


class FreesByWayOfNothing(Immediate):
    """mm/huge_memory.c, madvise_free_huge_pmd before 58ceeb6bec86 (v4.12): the PMD is cleared, then set again
    without its bits.

    Who looks for huge pages without the lock in between finds none, and leaves this one out.
    """

    name = "mistake:before-58ceeb6bec86"

    @instead_of(pmdp_invalidate, within=pmdp_clear_bits)
    async def cleared(self, cpu: PerCpu, mm: int, vpn: int, pmd: int) -> int:
        """pmdp_huge_get_and_clear_full; the caller sets it."""
        old: int = await XchgPte(mm, vpn, 0)
        await flush_tlb_range(cpu, mm, vpn, vpn + cpu.parameters.hpage_nr)
        return old


class HintsByWayOfNothing(Immediate):
    """mm/huge_memory.c, change_huge_pmd before ced108037c2a (v4.12): for a NUMA hint too the PMD is cleared,
    then set again."""

    name = "mistake:before-ced108037c2a"

    @instead_of(change_prot_numa)
    async def of_a_huge_page(self, cpu: PerCpu, mm: int, start: int, end: int) -> int:
        """What it does with one huge page."""
        tlb = await tlb_gather_mmu(mm)
        await Lock(ptl(mm, start))
        if await GetPte(mm, start) & PSE:
            old: int = await XchgPte(mm, start, 0)
            await SetPte(mm, start, protnone(old))
            tlb.adjust_range(start, end - start, end - start)
        await Unlock(ptl(mm, start))
        await tlb_finish_mmu(cpu, tlb)
        return end - start


class LoadsBeforeItIsSeen(Immediate):
    """arch/x86/mm, switch_mm before 71b3c126e611 (v4.5; CVE-2016-2069): its bit in mm_cpumask may become
    visible after the page tables have been loaded and used."""

    name = "mistake:before-71b3c126e611"

    def __init__(self) -> None:
        self._late: tuple[str, int] = ("", 0)

    @instead_of(AtomicOr, within=X86.switch_mm_irqs_off)
    async def bit(self, word: str, mask: int) -> int:
        """Waits in the CPU, as no barrier orders it."""
        self._late = (word, mask)
        return 0

    @instead_of(AtomicOr, within=X86.begin_switching)
    async def bit_of_today(self, word: str, mask: int) -> int:
        """The same where v6.18 does it."""
        return await self.bit(word, mask)

    @instead_of(LoadCr3, within=X86.switch_mm_irqs_off)
    async def load(self, mm: int, pcid: int, flush: bool) -> None:
        """And becomes visible now."""
        await LoadCr3(mm, pcid, flush)
        word, mask = self._late
        self._late = ("", 0)
        if word:
            await AtomicOr(word, mask)


class TakesSwitchingForElsewhere(Immediate):
    """arch/x86/mm/tlb.c, should_flush_tlb before fea4e317f9e7 (v6.15; CVE-2025-37964): a CPU whose loaded_mm
    is LOADED_MM_SWITCHING runs something else."""

    name = "mistake:before-fea4e317f9e7"

    @instead_of(Load, within=X86.should_flush_tlb)
    async def loaded(self, word: str) -> int:
        """What the CPU runs, or no mm at all."""
        value = await Load(word)
        return NO_MM if value == LOADED_MM_SWITCHING else value


class SwitchesWithoutBarrier(Immediate):
    """arch/x86/mm/tlb.c, switch_mm_irqs_off before 83b0177a6c48 (v6.18): nothing orders the store of
    LOADED_MM_SWITCHING before the load of the generation if the CPU is in the mask already."""

    name = "mistake:before-83b0177a6c48"

    @instead_of(SmpMb, within=X86.begin_switching)
    async def barrier(self) -> None:
        """barrier(), for the compiler."""


class SaysLateThatItSwitches(Immediate):
    """arch/x86/mm/tlb.c, switch_mm_irqs_off of 6.12.y before b2dbc71fe33b: LOADED_MM_SWITCHING is stored when
    the generation has been read."""

    name = "mistake:before-b2dbc71fe33b"

    def __init__(self) -> None:
        self._late: tuple[str, int] = ("", 0)

    @instead_of(Store, within=X86.begin_switching)
    async def not_yet(self, word: str, value: int) -> None:
        """Comes later."""
        self._late = (word, value)

    @instead_of(LoadCr3, within=X86.switch_mm_irqs_off)
    async def now(self, mm: int, pcid: int, flush: bool) -> None:
        """Just before CR3."""
        word, value = self._late
        await Store(word, value)
        await LoadCr3(mm, pcid, flush)


class UnlinksBeforeItFlushes(Immediate):
    """include/asm-generic/tlb.h, tlb_end_vma before b67fbebd4cf9 (v5.19; CVE-2022-39188): a driver's area is
    flushed for like any, after it has left the file's list."""

    name = "mistake:before-b67fbebd4cf9"

    @instead_of(tlb_flush_mmu_tlbonly, within=unmap_vmas)
    async def merged(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """With the next area."""


class ReapsAsIfNobodyRan(Immediate):
    """mm/oom_kill.c, __oom_reap_task_mm before 687cb0884a71 (v4.15; CVE-2017-18202): one gather over all
    of the mm, which arm64's tlb_flush leaves out, as the address space is never used again."""

    name = "mistake:before-687cb0884a71"

    @instead_of(tlb_gather_mmu, within=oom_reap_task_mm)
    async def gather(self, mm: int, fullmm: bool = False) -> MmuGather:
        """tlb_gather_mmu(&tlb, mm, 0, -1)."""
        return await tlb_gather_mmu(mm, fullmm=True)

    @instead_of(tlb_flush_mmu_tlbonly, within=tlb_flush_mmu)
    async def flush(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """arm64's tlb_flush."""
        if not tlb.fullmm:
            await tlb_flush_mmu_tlbonly(cpu, tlb)


class CountsCpusInAFewBits(Immediate):
    """XNU's pmap_flush: the set of CPUs to interrupt has fewer bits than there are CPUs. Here it has two."""

    name = "mistake:few-cpus-in-the-mask"

    @instead_of(SendIpi, within=on_each_cpu_cond_mask)
    async def send(
        self, targets: tuple[int, ...], function: str, arguments: tuple[int, ...], wait: bool
    ) -> int:
        """To those that fit."""
        return await SendIpi(tuple(cpu for cpu in targets if cpu < FEW_CPUS), function, arguments, wait)


class MovesWithoutReverseMap(Immediate):
    """mm/mremap.c, move_ptes before 5d1904204c99 (v4.9): no entry is flushed for under the lock, and the
    file's pages are found meanwhile (need_rmap_locks)."""

    name = "mistake:before-5d1904204c99"

    async def flush_moved(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Leaves it for later."""

    @instead_of(Lock, within=move_page_tables)
    async def take(self, name: str) -> None:
        """take_rmap_locks, which is not needed to find the page."""

    @instead_of(Unlock, within=move_page_tables)
    async def drop(self, name: str) -> None:
        """drop_rmap_locks."""

    @instead_of(move_page_tables)
    async def moves(self, cpu: PerCpu, mm: int, vma: Vma, new: int) -> frozenset[int]:
        """One flush for all at the end."""
        tables = await move_page_tables(cpu, mm, vma, new)
        await flush_tlb_range(cpu, mm, vma.start, vma.end)
        return tables


class FlushesWhenHandedOut(Immediate):
    """LUF v10 (Byungchul Park, 2024, not merged): reclaim frees clean pages of files without a flush.

    That is made up for when a frame leaves the allocator; a new mapping and a write to the file do not ask.
    """

    name = "mistake:luf-v10"
    frees_before_flush = True

    @instead_of(AtomicAdd, within=set_tlb_ubc_flush_pending)
    async def uncounted(self, word: str, delta: int) -> int:
        """Nobody else is told."""
        return 0

    def __init__(self) -> None:
        self._owed: frozenset[int] = frozenset()

    @instead_of(flush_and_free)
    async def free(self, cpu: PerCpu, folios: list[int]) -> None:
        """The batch stays as it is."""
        self._owed |= frozenset(folios)
        for pfn in folios:
            await FolioPut(pfn)
        folios.clear()

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """luf_flush."""
        if pfn in self._owed:
            self._owed = frozenset()
            await try_to_unmap_flush(cpu)


class ForksBesideFaults(Immediate):
    """kernel/fork.c, dup_mmap before fb49c455323f (v6.5): no vma_start_write of the parent's areas."""

    name = "mistake:before-fb49c455323f"

    @instead_of(vma_start_write, within=dup_mmap)
    async def relies_on_mmap_lock(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Which kept faults out before v6.4."""


class ClearsRefsBesideFaults(Immediate):
    """fs/proc/task_mmu.c, clear_refs_write before 29a951dfb3c3 (v5.11): mmap_lock for reading."""

    name = "mistake:before-29a951dfb3c3"

    @instead_of(mmap_write_lock, within=clear_refs_write)
    async def shares(self, mm: int) -> None:
        """With faults, which hold it so where areas have no locks."""
        await DownRead(mmap_lock(mm))

    @instead_of(vma_start_write, within=clear_refs_write)
    async def lets_faults_in(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """And where they have: as a lock for reading does."""

    @instead_of(mmap_write_unlock, within=clear_refs_write)
    async def drops(self, cpu: PerCpu, mm: int) -> None:
        """What it shared."""
        await UpRead(mmap_lock(mm))


class PunchesBesideFaults(Immediate):
    """fs/ext4/inode.c, ext4_punch_hole before ea3d7209ca01 (v4.5): faults take no lock when they read in."""

    name = "mistake:before-ea3d7209ca01"

    @instead_of(filemap_invalidate_lock_shared)
    async def take(self, file: int) -> None:
        """i_mmap_sem, as it was called then."""

    @instead_of(filemap_invalidate_unlock_shared)
    async def drop(self, file: int) -> None:
        """The same."""
