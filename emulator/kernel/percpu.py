"""What one CPU of the kernel keeps for itself: its current task, run queue, TLB state and counters.

Nothing here is visible to another CPU. What is shared has a name instead: the word names of this
file are the only place where they are spelt.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from emulator.hardware.cpu import Context, Program
from emulator.hardware.pte import PMD_ORDER
from emulator.kernel.versions import DEFAULT
from emulator.memory.zone import Watermarks

if TYPE_CHECKING:
    from emulator.kernel.mmu.mmu import Mmu
    from emulator.kernel.policy import Policy

INIT_MM = 0
LOADED_MM_SWITCHING = -1
TLB_NR_DYN_ASIDS = 6
MAX_CPUS = 128
PF_KSWAPD = 0x00020000  # include/linux/sched.h: what kind of task it is


def tlb_gen_word(mm: int) -> str:
    """mm->context.tlb_gen."""
    return f"tlb_gen.{mm}"


def cpumask_word(mm: int) -> str:
    """mm_cpumask(mm), one bit per CPU."""
    return f"mm_cpumask.{mm}"


def tlb_flush_pending_word(mm: int) -> str:
    """mm->tlb_flush_pending: how many have changed entries of the mm whose flush is still to come."""
    return f"tlb_flush_pending.{mm}"


def tlb_flush_batched_word(mm: int) -> str:
    """mm->tlb_flush_batched: how many unmaps put a flush of the mm off, and up to which one it was done."""
    return f"tlb_flush_batched.{mm}"


def has_pinned_word(mm: int) -> str:
    """MMF_HAS_PINNED in mm->flags: somebody has pinned pages of the mm at some time."""
    return f"has_pinned.{mm}"


def write_protect_seq_word(mm: int) -> str:
    """mm->write_protect_seq: odd while a fork write-protects the mm's pages."""
    return f"write_protect_seq.{mm}"


def mm_users_word(mm: int) -> str:
    """mm->mm_users: how many threads an mm has; counted where NUMA balancing asks for it."""
    return f"mm_users.{mm}"


def folio_lock(file: int, pgoff: int) -> str:
    """folio_lock of the folio in this page-cache slot: faults, truncation and reclaim exclude each other by
    it.

    Migration is kept out by the reference that a fault holds.
    """
    return f"folio_lock.{file}.{pgoff}"


def i_size_word(file: int) -> str:
    """inode->i_size of a file, in pages; kept where `file_sizes` says so."""
    return f"i_size.{file}"


def inode_lock(file: int) -> str:
    """inode->i_rwsem of a file: for who writes to it or changes its size."""
    return f"i_rwsem.{file}"


def invalidate_lock(file: int) -> str:
    """mapping->invalidate_lock of a file: for writing by who takes blocks away, for reading by who reads."""
    return f"invalidate_lock.{file}"


def is_lazy_word(cpu: int) -> str:
    """cpu_tlbstate_shared.is_lazy of a CPU."""
    return f"is_lazy.{cpu}"


def loaded_mm_word(cpu: int) -> str:
    """cpu_tlbstate.loaded_mm of a CPU as others see it, where they look (`lazy_mm_cpumask`)."""
    return f"loaded_mm.{cpu}"


def loaded_mm_asid_word(cpu: int) -> str:
    """cpu_tlbstate.loaded_mm_asid of a CPU as others see it, where they look."""
    return f"loaded_mm_asid.{cpu}"


def global_asid_word(mm: int) -> str:
    """mm->context.global_asid: the address-space number that the mm has on all CPUs; 0 if it has none."""
    return f"global_asid.{mm}"


def asid_transition_word(mm: int) -> str:
    """mm->context.asid_transition: some CPU may still run the mm under a number of its own."""
    return f"asid_transition.{mm}"


def flushing_word(cpu: int) -> str:
    """Whether a CPU has acknowledged a flush that it is about to do, before it runs user code again."""
    return f"flushing.{cpu}"


@dataclass(frozen=True, slots=True)
class KernelParameters:
    """Tunables, under the kernel's names. Sizes in pages, `watermarks` and `starts` by node.

    `starts` holds each node's first frame and, last, the frame after the end of memory. Without
    `tlb_flush_batched` those who change entries do not ask for what others have unmapped, as before v4.13
    (3ea277194daa: flush_tlb_batched_pending). Without
    `numa_promotes` no page is hot enough for a hint fault to promote it (should_numa_migrate_memory). Else
    what is used within `numa_hot_threshold_accesses` of the scan is, 0 for a scan period, and no more than
    `numa_promote_rate_pages` are a period. A scan period may become `numa_scan_period_max_accesses` long, 0
    for sixty times the first.
    Pages of the page cache that are mapped privately get hints with `numa_hints_page_cache` only: from v5.17
    on (80d47f5de5e3) the cache's reference kept them out.
    Reclaim looks at `swap_cluster_max` folios at once, a migration unmaps `migrate_batch` before it flushes.
    More than `tlb_single_page_flush_ceiling` pages are flushed by a flush of everything. A scan looks at
    `numa_scan_pages`, none if 0 (in litmus tests), and the next one comes `numa_scan_period_accesses` later.
    With `migration_entry_ad` a migration entry keeps the accessed and dirty bits (v6.1).
    Without `migrate_batched` a migration flushes for each page by itself, as kernels before v6.3 do.
    Who unmaps gathers `mmu_gather_pages` frames, then flushes and frees them; 0: as many as the kernel.
    `sched_slice_batches`: reclaim gives way to other tasks of its CPU once in so many batches; a time slice
    is milliseconds, a batch tens of microseconds. A PMD maps 2**`hpage_order` pages, 9 on x86; 0 turns huge
    pages off. `thp_batched_flush` is no kernel's: unmapping a huge page for migration then joins the batch,
    as that of a small one does, where set_pmd_migration_entry flushes at once. Without `per_cpu_pages` no
    CPU has a list of free pages, and any may get what another has just freed. `memory_scale`: how many times
    the memory of the machine that is meant is larger; whatever goes by absolute sizes counts in its pages.
    With `forbids_zeropage` (mm_forbids_zeropage) a read of anonymous memory gets a page of its own.
    With `page_table_frames` a page table costs a frame of the fast tier, as the slow one takes only what can
    move. With `pageout_clears_young` MADV_PAGEOUT clears accessed bits first. Reclaim flushes for and frees
    `reclaim_free_batch` folios at once, 0 for all of its list. Without `rotation_costs` what it looks at in
    vain does not count when it chooses between kinds of pages. Without `uffd_gives_write_back` userfaultfd
    leaves entries read-only that it protects no more. With `split_maps_zeropage` pages of a split huge one
    that are all zeroes are the zero page from then on. Without `split_keeps_dirty` the small entries that a
    PMD is split into are clean. With `mprotect_needs_dirty` no more than dirty entries of small pages become
    writable at once, the others by a fault. With `punch_hole_writes` ext4 writes dirty pages out before it
    makes a hole. Without `numa_scans_shmem` the scanner leaves tmpfs alone. With `swap` there is a device to
    swap to. With `ksm` somebody merges pages, which who writes asks for. With `numa_balancing_normal`
    (NUMA_BALANCING_NORMAL) hints are for pages of every node, not only for those outside the top tier.
    `version` names the kernel whose ways
    these are (`emulator.kernel.versions`). With `lazy_mm_cpumask` a CPU stays in the mask of an mm that it
    has left, and who flushes looks what it runs (should_flush_tlb). Without `pcid` there is one address-space
    number, and every switch to another mm drops everything. With `walker_caches` page-table pages are things
    that are freed and moved, and CPUs cache upper entries that name them; `leaf_only` tells that the
    invalidation of a page does not drop these (riscv). `paravirt_flush`: a KVM guest, which sends no
    interrupt to a virtual CPU that does not run (kvm_flush_tlb_multi) and frees tables by RCU; without
    `table_batches` it has no page to note them.
    With `fault_locks` page faults lock the area that they are in, or, without `per_vma_locks`, mmap_lock;
    only who changes areas can tell, so machines without such do without.
    With `folio_locks` a migration holds the lock of a file's folio; only who writes to files past their
    mappings can tell.
    With `file_sizes` files have sizes, which truncation changes and faults ask; else they have no end.
    An mm that runs on `global_asid_cpus` CPUs at once gets an address-space number that is the same on all,
    of those below `max_asid_available`, where the mmu has such (x86-invlpgb, x86-rar).
    `rar_max_payloads`: how many payloads the table of x86-rar has, which CPUs share. `latr_states`: how long
    a CPU's array is (latr), which is swept every `tick_accesses` accesses: 1 ms of about 25 ns each. On
    arm64 there are 2**`asid_bits` numbers; with `tlb_range` one TLBI takes a range (FEAT_TLBIRANGE).
    `devices`: (CPU, mm) of what walks the page tables of an mm in the place of a CPU; `guests`: (CPU, mm,
    first page, pages) of virtual CPUs of a KVM guest, which has those pages of the mm, in `guest_roots`
    tables. `invlpg_miss`: the CPUs are some of invlpg_miss_ids, whose INVLPG leaves global entries.
    `one_size_only`: they must not have a small and a huge translation of one address (AMD's erratum 383).
    """

    cpus: int
    watermarks: tuple[Watermarks, ...]
    starts: tuple[int, ...]
    swap_cluster_max: int = 32
    migrate_batch: int = 512
    migrate_batched: bool = True
    tlb_single_page_flush_ceiling: int = 33
    numa_scan_pages: int = 256
    numa_scan_period_accesses: int = 5_000
    numa_scan_period_max_accesses: int = 0
    numa_hot_threshold_accesses: int = 0
    numa_promote_rate_pages: int = 1 << 24
    numa_promotes: bool = True
    numa_hints_page_cache: bool = False
    migration_entry_ad: bool = True
    tlb_flush_batched: bool = True
    sched_slice_batches: int = 8
    mmu_gather_pages: int = 0
    hpage_order: int = 0
    thp_batched_flush: bool = False
    per_cpu_pages: bool = True
    memory_scale: int = 1
    forbids_zeropage: bool = False
    page_table_frames: bool = False
    pageout_clears_young: bool = True
    reclaim_free_batch: int = 0
    rotation_costs: bool = True
    uffd_gives_write_back: bool = True
    lazy_mm_cpumask: bool = False
    split_maps_zeropage: bool = False
    split_keeps_dirty: bool = True
    mprotect_needs_dirty: bool = False
    punch_hole_writes: bool = False
    numa_scans_shmem: bool = True
    swap: bool = False
    ksm: bool = False
    numa_balancing_normal: bool = False
    version: str = DEFAULT
    pcid: bool = True
    walker_caches: bool = False
    fault_locks: bool = False
    folio_locks: bool = False
    file_sizes: bool = False
    per_vma_locks: bool = True
    devices: tuple[tuple[int, int], ...] = ()
    guests: tuple[tuple[int, int, int, int], ...] = ()
    guest_roots: int = 1
    invlpg_miss: bool = False
    one_size_only: bool = False
    leaf_only: bool = False
    paravirt_flush: bool = False
    global_asid_cpus: int = 4
    max_asid_available: int = 4094
    rar_max_payloads: int = 64
    latr_states: int = 64
    tick_accesses: int = 40_000
    asid_bits: int = 8
    tlb_range: bool = True
    table_batches: bool = True

    @property
    def all_cpus(self) -> int:
        """cpu_possible_mask."""
        return (1 << self.cpus) - 1

    @property
    def beside(self) -> int:
        """Those in the place of a CPU that are none, as a mask."""
        return sum({1 << number for number, *_ in (*self.devices, *self.guests)})

    @property
    def numa_hot_threshold(self) -> int:
        """numa_balancing_hot_threshold, in accesses: hot_threshold_ms is as long as the first scan period."""
        return self.numa_hot_threshold_accesses or self.numa_scan_period_accesses

    @property
    def numa_scan_period_max(self) -> int:
        """numa_balancing_scan_period_max, in accesses: 60,000 ms, where the first is 1,000."""
        return self.numa_scan_period_max_accesses or 60 * self.numa_scan_period_accesses

    @property
    def hpage_nr(self) -> int:
        """HPAGE_PMD_NR; 1 without huge pages."""
        return 1 << self.hpage_order

    @property
    def table_pages(self) -> int:
        """PTRS_PER_PTE: pages that one page table maps, which is what a huge page has."""
        return 1 << (self.hpage_order or PMD_ORDER)

    def hpage_head(self, vpn: int) -> int:
        """The page & HPAGE_PMD_MASK: first page of what a PMD would map."""
        return vpn & -1 << self.hpage_order

    def hpage_align(self, vpn: int) -> int:
        """ALIGN(page, HPAGE_PMD_NR): first page of the next PMD, or the page if it is one."""
        return -(-vpn & -1 << self.hpage_order)

    def nid(self, pfn: int) -> int:
        """page_to_nid."""
        node = 0
        while pfn >= self.starts[node + 1]:
            node += 1
        return node


@dataclass(slots=True, eq=False)
class TlbUbc:
    """struct tlbflush_unmap_batch: the flush that a task owes for what it has unmapped."""

    cpumask: int = 0
    nr_flush_required: int = 0
    writable: bool = False

    def fold(self, other: TlbUbc) -> None:
        """Take over what another batch owes and leave that one empty."""
        self.cpumask |= other.cpumask
        self.nr_flush_required += other.nr_flush_required
        self.writable = self.writable or other.writable
        other.clear()

    def clear(self) -> None:
        """Nothing is owed any more."""
        self.cpumask = 0
        self.nr_flush_required = 0
        self.writable = False


@dataclass(slots=True, eq=False)
class Task:
    """struct task_struct as far as memory management reads it. `mm` 0 is a kernel thread."""

    pid: int
    mm: int
    flags: int = 0
    context: Context | None = None
    runnable: bool = True
    should_stop: bool = False
    tlb_ubc: TlbUbc = field(default_factory=TlbUbc)
    policy_state: Any = None  # the policy's own: what it has under way for this task


@dataclass(slots=True, eq=False)
class TlbContext:
    """struct tlb_context: which mm an ASID slot holds, and how far its flushes have come."""

    mm: int = -1
    tlb_gen: int = 0


def _contexts() -> list[TlbContext]:
    return [TlbContext(INIT_MM), *(TlbContext() for _ in range(TLB_NR_DYN_ASIDS - 1))]


@dataclass(slots=True, eq=False)
class TlbState:
    """struct tlb_state of one CPU."""

    loaded_mm: int = INIT_MM
    loaded_mm_asid: int = 0
    next_asid: int = 1
    is_lazy: bool = False
    ctxs: list[TlbContext] = field(default_factory=_contexts)


class Stopwatch(Protocol):
    """Who measures what allocations of a CPU take, where time passes."""

    def now(self) -> int:
        """The CPU's time in ns."""

    def allocated(self, mm: int, begun: int) -> None:
        """A task of that mm has a page, for which it has asked at `begun`."""


class PerCpu:
    """Everything private to one CPU; every kernel function takes it first."""

    def __init__(self, number: int, parameters: KernelParameters, policy: Policy, mmu: Mmu) -> None:
        self.number = number
        self.bit = 1 << number
        self.parameters = parameters
        self.policy = policy
        self.mmu = mmu
        self.tlbstate = TlbState()
        self.idle = Task(0, INIT_MM)
        self.current = self.idle
        self.tasks: dict[int, Task] = {}
        self.runqueue: deque[Task] = deque()
        self.stopping = False
        self.need_resched = False
        self.vmstat: dict[str, int] = {}
        self.tlb_interrupts = 0  # this CPU's column of the TLB row in /proc/interrupts
        self.accesses = 0
        self.sampled_hits = 0
        self.reclaim_batches = 0
        self.ticks_at = parameters.tick_accesses
        self.now = 0  # the time for NUMA balancing: when the thread's current chunk of accesses began
        self.numa_scan_period = parameters.numa_scan_period_accesses
        self.numa_scan_at = parameters.numa_scan_period_accesses
        self.numa_scan_seq = 0
        self.write_locked: tuple[int, ...] = ()  # where the areas begin that a call of this CPU has locked
        self.page_tables: list[int] = []  # frames that hold the page tables that this CPU has made
        self.prev_mm = INIT_MM  # rq->prev_mm: what the kernel thread before the current task had borrowed
        self.stopwatch: Stopwatch | None = None
        self._versions = 0

    def count(self, counter: str, delta: int = 1) -> None:
        """count_vm_events on this CPU."""
        self.vmstat[counter] = self.vmstat.get(counter, 0) + delta

    def count_most(self, counter: str, value: int) -> None:
        """A counter that has the largest value that there ever was on this CPU."""
        self.vmstat[counter] = max(self.vmstat.get(counter, 0), value)

    def counted(self, counter: str) -> int:
        """How often this CPU has counted that."""
        return self.vmstat.get(counter, 0)

    def remote_flushes(self) -> int:
        """How many remote flushes this CPU has begun, for `count_flushes` only."""
        return self.counted("nr_tlb_remote_flush")

    def count_flushes(self, counter: str, before: int) -> None:
        """Add to a counter by how much this CPU's nr_tlb_remote_flush has grown since it was `before`."""
        self.count(counter, self.remote_flushes() - before)

    def count_interrupt(self) -> None:
        """This CPU's column of the TLB row in /proc/interrupts."""
        self.tlb_interrupts += 1

    def probe(self, event: str, *arguments: int) -> None:
        """Where a kprobe may sit; nobody does here. `emulator/kernel/tlb.py` says which events there are."""

    def new_version(self) -> int:
        """A content version that no other write of the run has."""
        self._versions += 1
        return self._versions * MAX_CPUS + self.number

    def results(self) -> dict[str, Any]:
        """What this CPU has to report at the end: counters, interrupts, accesses."""
        return {
            "vmstat": dict(self.vmstat),
            "tlb_interrupts": self.tlb_interrupts,
            "accesses": self.accesses,
            "sampled_hits": self.sampled_hits,
        }

    def add_task(self, task: Task, program: Program) -> None:
        """Make a task of this CPU, ready to run `program`."""
        task.context = Context(program)
        self.tasks[task.pid] = task
        if task.runnable:
            self.runqueue.append(task)
