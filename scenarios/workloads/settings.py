"""What a run is made of: the tiers, the TLB, the kernel's settings and the threads.

The models are the only description of the format of workload files; a file is wrong in exactly the ways that
they say. A kind of workload is a model of its own, in a file of its own (see `kinds`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, PrivateAttr, create_model, model_validator
from pydantic_core import PydanticCustomError

from emulator.hardware.pte import PMD_ORDER
from emulator.kernel import percpu
from emulator.kernel.boot import UserSpace
from emulator.kernel.versions import DEFAULT
from emulator.measure import costs as model
from scenarios.disk import Plain
from scenarios.usage import UsageProblem
from scenarios.workloads.watermarks import hpage_problems

MAX_CPUS: Final = 64
"""CPUs of a live run: each is a process."""

MAX_TIMED_CPUS: Final = percpu.MAX_CPUS
MAX_SEED: Final = 2**63 - 1
"""CPUs of a timed run: as many as the kernel has bits in a mask."""

MAX_PAGES: Final = 4_000_000
MIN_TIER_PAGES: Final = 64
PAGES_PER_CPU: Final = 16

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _section(model: type, ranges: Mapping[str, tuple[int, int]]) -> Any:
    """A section with keys of a dataclass, which says types and defaults; `ranges`: which keys, from, to."""
    default = {field.name: field.default for field in fields(model)}
    keys: dict[str, Any] = {
        key: (type(default[key]), Field(default=default[key], ge=least, le=most))
        for key, (least, most) in ranges.items()
    }
    return create_model(model.__name__, __base__=Plain, **keys)


class Memory(Plain):
    """`[memory]`: the two tiers, in pages of 4 KiB.

    `min_free_pages` is the fast tier's min watermark; absent: computed from the tier's size as Linux does.
    `slow_min_free_pages` is the slow tier's; absent: a page. Linux divides min_free_kbytes by size.
    The machine that is meant has `divided_by` times as much memory; `scale` sets that. How long Linux wants
    the list of inactive folios goes by real sizes.
    """

    fast_pages: int = Field(default=1024, ge=MIN_TIER_PAGES, le=MAX_PAGES)
    slow_pages: int = Field(default=4096, ge=MIN_TIER_PAGES, le=MAX_PAGES)
    min_free_pages: int | None = Field(default=None, ge=1, le=MAX_PAGES)
    slow_min_free_pages: int | None = Field(default=None, ge=1, le=MAX_PAGES)
    divided_by: int = Field(default=1, ge=1, le=65536)


class Tlb(Plain):
    """`[tlb]`: entries and ways of the two levels. Entries divided by ways, the sets, is a power of two."""

    l1_entries: int = Field(default=64, ge=1, le=65536)
    l1_ways: int = Field(default=4, ge=1, le=65536)
    l2_entries: int = Field(default=1536, ge=1, le=65536)
    l2_ways: int = Field(default=12, ge=1, le=65536)


_KERNEL: Final[dict[str, tuple[int, int]]] = {
    "numa_scan_pages": (0, MAX_PAGES),
    "numa_scan_period_accesses": (1, 10**12),
    "numa_scan_period_max_accesses": (0, 10**12),
    "numa_hot_threshold_accesses": (0, 10**12),
    "numa_promote_rate_pages": (1, 10**12),
    "swap_cluster_max": (1, 4096),
    "tlb_single_page_flush_ceiling": (0, MAX_PAGES),
    "migrate_batch": (1, 4096),
    "migrate_batched": (False, True),
    "migration_entry_ad": (False, True),
    "page_table_frames": (False, True),
    "sched_slice_batches": (1, 10**6),
    "hpage_order": (0, PMD_ORDER),
    "pcid": (False, True),
    "tick_accesses": (1, 10**12),
}


class Kernel(_section(percpu.KernelParameters, _KERNEL)):  # type: ignore[misc]
    """`[kernel]`: what an administrator or a kernel build could set.

    `numa_scan_pages` entries are made PROT_NONE by each scan (0: no scans), one scan every
    `numa_scan_period_accesses` accesses of a thread, whichever thread of the process gets there first.
    A page is promoted if it is used within `numa_hot_threshold_accesses` of the scan; 0, as in a kernel at
    first, for a scan period. The threshold adapts, up to twice of that, once in
    `numa_scan_period_max_accesses` (0: 60 periods), and no more than `numa_promote_rate_pages` are promoted
    in a period.
    `swap_cluster_max` pages go to one reclaim batch, `migrate_batch` to one `migrate_pages` batch.
    Flushing more than `tlb_single_page_flush_ceiling` pages flushes everything. `migration_entry_ad`:
    migration entries keep the accessed and dirty bits (since v6.1). With `page_table_frames` page tables cost
    frames of the fast tier. Reclaim gives way to the threads of its
    CPU once in `sched_slice_batches` batches, a thread to it after each chunk of accesses. Anonymous memory
    gets huge pages of 2**`hpage_order` pages where they fit: 9 on x86, 0 for none. Without `pcid` every
    switch to another address space drops everything. A CPU ticks every `tick_accesses` accesses, which `--mmu
    latr` goes by. `version`: which kernel's ways these are, where no key
    says otherwise (emulator/kernel/versions.py). Without `migrate_batched`, as in 6.1, migration flushes for
    each page by itself, and no policy is asked.
    """

    version: Literal["6.1", "6.6", "6.12", "6.18"] = DEFAULT


class Threads(Plain):
    """`[threads]`: who accesses what.

    Each CPU runs `per_cpu` threads, dealt out to `processes` address spaces. All map one file privately,
    the table of `table_pages`, and only read it; each process has an anonymous heap of `heap_pages`. A
    thread makes `accesses`: a share `heap_share` goes to the heap, `write_share` of those are writes, the
    rest reads the table. In each region a share `hot_share` falls into a window of `hot_pages`, which moves
    on by `drift_pages` every `drift_every` accesses.
    """

    accesses: int = Field(default=200_000, ge=1, le=10**12)
    table_pages: int = Field(default=1024, ge=0, le=MAX_PAGES)
    heap_pages: int = Field(default=512, ge=0, le=MAX_PAGES)
    hot_pages: int = Field(default=512, ge=1, le=MAX_PAGES)
    drift_every: int = Field(default=10_000, ge=1, le=10**12)
    drift_pages: int = Field(default=32, ge=0, le=MAX_PAGES)
    hot_share: Share = 0.9
    heap_share: Share = 0.3
    write_share: Share = 0.05
    per_cpu: int = Field(default=1, ge=1, le=64)
    processes: int = Field(default=1, ge=1, le=1024)


class Checks(Plain):
    """`[checks]`: of the accesses that hit the TLB, one in `sample_every` is checked. Fills always are."""

    sample_every: int = Field(default=1000, ge=1, le=10**9)


_COSTS: Final = {field.name: (0, 10**9) for field in fields(model.Costs)} | {
    "sockets": (1, 64),
    "access_ns": (1, 10**9),
    "cache_misses_per_1000": (0, 1000),
    "instruction_ns": (1, 10**9),
}


class Costs(_section(model.Costs, _COSTS)):  # type: ignore[misc]
    """`[costs]`: what things cost on the timed engine, in ns but for the two counts; others ignore it.

    What each default is taken from stands in emulator/measure/costs.py. CPUs are dealt out to `sockets`,
    which form a ring; a hop is one step on it.

    * An access costs `access_ns`; of 1000, `cache_misses_per_1000` cost their tier's `fast_ns` or `slow_ns`
      more. A hit in the second TLB level costs `second_level_ns` more, a page walk `walk_ns`, a fault
      `fault_ns`.
    * `invlpg_ns` drops one translation, `flush_ns` all of an address space, `cr3_ns` changes to another one.
      `invlpgb_ns` asks all CPUs to drop some (`--mmu x86-invlpgb`, `x86-rar`), as an interrupt arrives; word
      of its end takes `tlbsync_ns`. On arm64 it is `tlbi_ns`, and `dsb_ns` of a DSB that waits for nothing.
    * An interrupt takes `ipi_send_ns` of the sender and `ipi_deliver_ns` on its way, `ipi_send_hop_ns` and
      `ipi_deliver_hop_ns` more for every hop, and `interrupt_ns` of the receiver.
    * A word costs `load_ns` to read and `atomic_ns` to change, and `line_ns` and `line_hop_ns` more if
      another CPU has it; a lock that is waited for takes `lock_handover_ns`. `instruction_ns` is anything
      else.
    * The kernel's work: `page_table_ns` an entry, `folio_ns` a folio's count, flag or list, `rmap_ns` a
      reverse map, `allocate_ns` an allocation, `switch_ns` a task switch. `page_fast_ns` or `page_slow_ns` is
      reading or writing a page of the tier: a copy is two of them, zeroing one.
    """

    def prices(self) -> model.Costs:
        return model.Costs(**self.model_dump())


class Workload(Plain):
    """One scenario that the live and the timed engine can run. `workload_file.load_workload` reads it.

    A kind may have a section of its own name. `scaled` are the keys of that which `scale` divides,
    `threads_used` the keys of [threads] that mean something, `threads_instead` says what stands for others;
    `parameters` of the kernel are what its programs need.
    """

    scaled: ClassVar[tuple[str, ...]] = ()
    threads_used: ClassVar[frozenset[str]] = frozenset(Threads.model_fields)
    threads_instead: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, Any]] = {}

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    description: str = Field(default="", max_length=1000)
    kind: str
    scale: int = Field(default=1, ge=1, le=65536)
    memory: Memory = Memory()
    tlb: Tlb = Tlb()
    kernel: Kernel = Kernel()
    threads: Threads = Threads()
    checks: Checks = Checks()
    costs: Costs = Costs()

    _file: str = PrivateAttr("workload")
    _folder: Path = PrivateAttr(Path())
    _live_settings: dict[str, Any] = PrivateAttr(default_factory=dict)

    @abstractmethod
    def user_space(self, cpus: int, seed: int, trace: Path | None) -> UserSpace:
        """Its programs. UsageProblem if the trace is none."""

    @model_validator(mode="after")
    def _relations(self) -> Workload:
        for key, problem in self.contradictions():
            raise PydanticCustomError("relation", "{problem}", {"key": key, "problem": problem})
        return self

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Pairs of key and problem, for values that are each possible but not together."""
        memory, tlb, costs = self.memory, self.tlb, self.costs
        if costs.slow_ns < costs.fast_ns:
            yield (
                "costs.slow_ns",
                f"{costs.slow_ns} ns is less than the fast tier's {costs.fast_ns}; "
                f"{costs.fast_ns} or more, or a smaller fast_ns",
            )
        for level, entries, ways in (
            ("l1", tlb.l1_entries, tlb.l1_ways),
            ("l2", tlb.l2_entries, tlb.l2_ways),
        ):
            sets = entries // ways
            if entries % ways or sets & (sets - 1):
                right = ways << max((entries // ways).bit_length() - 1, 0)
                yield (
                    f"tlb.{level}_entries",
                    f"{entries} entries in {ways} ways do not make a power of two of sets; "
                    f"{right} would, or other {level}_ways",
                )
        total = memory.fast_pages + memory.slow_pages
        if total > MAX_PAGES:
            yield (
                "memory.slow_pages",
                f"both tiers together have {total} pages; {MAX_PAGES} or fewer (fast_pages + slow_pages)",
            )
        if memory.min_free_pages is not None and 3 * memory.min_free_pages > memory.fast_pages:
            # The high watermark is 3/2 of min; half of the tier must remain usable above it.
            yield (
                "memory.min_free_pages",
                f"{memory.min_free_pages} pages of watermark leave too little of {memory.fast_pages} fast "
                f"pages; {memory.fast_pages // 3} or fewer, or more fast_pages",
            )
        if memory.slow_min_free_pages is not None and 3 * memory.slow_min_free_pages > memory.slow_pages:
            yield (
                "memory.slow_min_free_pages",
                f"{memory.slow_min_free_pages} pages of watermark leave too little of {memory.slow_pages} "
                f"slow pages; {memory.slow_pages // 3} or fewer, or more slow_pages",
            )
        yield from hpage_problems(
            self.kernel.hpage_order, memory.fast_pages, memory.slow_pages, memory.min_free_pages
        )
        for key in sorted(self.threads.model_fields_set - self.threads_used):
            yield f"threads.{key}", f"{self.threads_instead}; remove it"

    def too_large(self, pages: int) -> str:
        """What is wrong with so many pages in use, empty if they fit.

        No swap: what does not fit cannot be reclaimed. An eighth is left for watermarks and moving pages.
        """
        total = self.memory.fast_pages + self.memory.slow_pages
        most = total * 7 // 8
        if pages <= most:
            return ""
        return (
            f"{pages} pages, which do not fit into tiers of {total}; {most} or fewer in all, or larger tiers"
        )

    def check(self, cpus: int) -> None:
        """UsageProblem if this workload cannot run on `cpus` simulated CPUs."""
        needed = cpus * PAGES_PER_CPU
        if self.memory.fast_pages < needed:
            raise self.problem(
                "memory.fast_pages",
                f"{self.memory.fast_pages} pages are too few to boot {cpus} CPUs; "
                f"{needed} or more ({PAGES_PER_CPU} for each CPU)",
            )
        threads = cpus * self.threads.per_cpu
        if self.threads.processes > threads:
            raise self.problem(
                "threads.processes",
                f"{self.threads.processes} processes need a thread each, but {cpus} CPUs run {threads}; "
                f"{threads} or fewer, or more CPUs",
            )

    def located(self, label: str, folder: Path, live_settings: dict[str, Any] | None = None) -> Workload:
        """The same, with what to call it in errors, the folder that its trace is relative to, and what its
        file sets for the live engine only, by `scale` or `section.key`."""
        self._file, self._folder, self._live_settings = label, folder, live_settings or {}
        return self

    @property
    def live_settings(self) -> dict[str, Any]:
        """What was set because this is to run live; empty for most."""
        return self._live_settings

    def trace_file(self, option: Path | None) -> Path | None:
        """The trace to replay: `option` (from `--trace`) or the file's own; None for a kind without one.

        UsageProblem if the kind wants a trace and there is none, or has no use for the one given.
        """
        if option is not None:
            raise UsageProblem(f"--trace: scenario {self.name} replays no trace; leave it out, or run replay")
        return None

    def settings_used(self) -> dict[str, Any]:
        """Every setting, whatever its default will be, without those that the kind has no use for."""
        settings = self.model_dump()
        settings["threads"] = self.threads.model_dump(include=set(self.threads_used))
        return settings

    def problem(self, key: str, text: str) -> UsageProblem:
        return UsageProblem(f"{self._file}: {key}: {text}")
