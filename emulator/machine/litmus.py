"""A litmus test: a small program on a few CPUs, one question, and the answers that are expected.

A test says how the machine looks at the start (what is mapped, cached and pending) and what each CPU runs;
the programs use the kernel's own functions. Nothing here chooses who goes next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from emulator.checks.frugality import Frugality
from emulator.checks.two_sizes import TwoSizes
from emulator.hardware.awaits import check_kept
from emulator.hardware.cpu import Context, Cpu, Program
from emulator.hardware.operations import AtomicAdd, Idle, WaitFor
from emulator.hardware.ordering import Architecture
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    KERNEL_PAGE,
    PRESENT,
    PSE,
    RW,
    ZERO_PFN,
    mk_pte,
    pte_pfn,
)
from emulator.hardware.tlb import GLOBAL, TlbShape
from emulator.kernel.mmu.catalogue import MMUS, mmu_for
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import uses_pcid
from emulator.kernel.mmu.x86_invlpgb import GLOBAL_ASID_USED, LAST_GLOBAL_ASID
from emulator.kernel.percpu import (
    INIT_MM,
    KernelParameters,
    PerCpu,
    Task,
    asid_transition_word,
    cpumask_word,
    global_asid_word,
    i_size_word,
    is_lazy_word,
    loaded_mm_asid_word,
    loaded_mm_word,
    tlb_gen_word,
)
from emulator.kernel.pfnmap import i_mmap_word
from emulator.kernel.policy import Policy
from emulator.machine.builder import Machine, parameters_of
from emulator.machine.counters import CountedCpu
from emulator.machine.reach import needs_fault_locks, needs_folio_locks
from emulator.machine.same_program import same
from emulator.memory.folios import Folio, Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_PFNMAP, VM_READ, VM_SHARED, VM_WRITE, Vma
from emulator.memory.table_pages import TablePages
from emulator.memory.zone import Watermarks

Observation = Literal["Never", "Sometimes"]
Body = Callable[[PerCpu], Awaitable[object]]

MM = 1
FAST = 0
SLOW = 1
DONE = "litmus.done"
NO_MARKS = Watermarks(0, 0, 0)
SHAPE = TlbShape(16, 4, 16, 4)
PID = 100


class Forbidden(Exception):
    """Raised by a litmus program that has seen what must not be: `rule` names it, `text` tells the values."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class Expectation(NamedTuple):
    """What is expected under one policy: whether a broken rule can be observed, by architecture.

    None for an architecture that the test is not about: it is left out there, and so said. `reached`: kernel
    or litmus counters (`cpu.count`) that some explored run must have counted, or a "Never" would say
    nothing. `rules`: a "Sometimes" must be one of these rules; empty means any.
    """

    policy: str
    sc: Observation | None
    x86: Observation | None
    riscv: Observation | None
    reached: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    arm64: Observation | None = None

    def on(self, arch: str) -> Observation | None:
        """What is expected there: on arm64, where nothing is said of it, what is expected on riscv."""
        found: Observation | None = getattr(self, arch)
        return self.riscv if arch == "arm64" and found is None else found


@dataclass(slots=True)
class Setup:
    """How the machine looks at the start; a litmus test's `setup` fills it in.

    Frames are numbered from 1 in the fast tier, then the slow tier. Everything is plain data, so that the
    same start can be built as often as a search needs it.
    """

    memory: Memory
    cpus: int
    parameters: KernelParameters
    cached: list[tuple[int, int, int]] = field(default_factory=list)  # (CPU, vpn, entry)
    loaded: list[int] = field(default_factory=list)  # per CPU the mm it runs
    flags: dict[int, int] = field(default_factory=dict)  # CPU -> flags of its task
    lazy: list[int] = field(default_factory=list)  # CPUs that run a kernel thread on their mm
    walked: list[tuple[int, int, int]] = field(default_factory=list)  # (CPU, vpn, upper entry)
    asid: int = 1  # under which number CPUs run what they have loaded

    def area(
        self,
        start: int,
        pages: int,
        writable: bool = True,
        file: int = 0,
        shared: bool = False,
        mm: int = MM,
        pgoff: int = 0,
    ) -> None:
        """A memory area of `pages` pages; anonymous if `file` is 0, else of the file from page `pgoff` on."""
        flags = VM_READ | (VM_WRITE if writable else 0) | (VM_SHARED if shared else 0)
        self.memory.page_tables.mm(mm).areas.append(Vma(start, start + pages, flags, file, pgoff))
        self.memory.page_tables.mm(mm).areas.sort()

    def page(
        self,
        vpn: int,
        node: int = FAST,
        writable: bool = False,
        dirty: bool = False,
        exclusive: bool = True,
        version: int = 0,
        flags: int = 0,
        mm: int = MM,
        cached: Iterable[int] = (),
    ) -> int:
        """Map a fresh folio of `node` at page `vpn`, on the inactive list; its frame.

        `version` is its content version, `flags` further page-table bits. A writable entry is dirty as
        well if `dirty` says so. With PSE among the flags it is a huge page of hpage_order (see `settings`).
        These CPUs have it `cached`.
        """
        if flags & PSE and not self.parameters.hpage_order:
            raise ValueError('litmus setup: no huge page without the setting ("hpage_order", 1)')
        pfn = self._folio(node, self.parameters.hpage_order if flags & PSE else 0, version)
        entry = mk_pte(pfn, PRESENT | ACCESSED | flags)
        entry |= (RW if writable else 0) | (DIRTY if dirty else 0) | (EXCLUSIVE if exclusive else 0)
        self.memory.page_tables.put(mm, vpn, entry)
        self.memory.folios.folios[pfn].rmap[mm, vpn] = entry
        self.cached += [(cpu, vpn, entry) for cpu in cached]
        return pfn

    def _folio(self, node: int, order: int, version: int) -> int:
        """A fresh folio on the inactive list, with one reference; its first frame."""
        folios = self.memory.folios
        if not 0 <= node < len(folios.zones):
            raise ValueError(f"litmus setup: node {node!r}; {FAST} is the fast one, {SLOW} the slow one")
        pfn = folios.zones[node].rmqueue(order)
        if pfn is None:
            raise ValueError(f"litmus setup: node {node} has no {1 << order} free frames for a page")
        folios.folios[pfn] = Folio(pfn, order, node)
        folios.lruvec_add_folio(folios.folios[pfn], False)
        for frame in range(pfn, pfn + (1 << order)):
            folios.content[frame] = version
        return pfn

    def zero_page(self, vpn: int, mm: int = MM, cached: Iterable[int] = ()) -> None:
        """Map the shared zero page, as a read of anonymous memory does; these CPUs have it `cached`."""
        entry = mk_pte(ZERO_PFN, PRESENT | ACCESSED)
        self.memory.page_tables.put(mm, vpn, entry)
        self.cached += [(cpu, vpn, entry) for cpu in cached]

    def map_again(self, vpn: int, pfn: int, writable: bool = False, mm: int = MM) -> None:
        """Map an existing folio at another page as well."""
        folio = self.memory.folios.folios[pfn]
        entry = mk_pte(pfn, PRESENT | ACCESSED | (RW | DIRTY if writable else 0))
        self.memory.page_tables.put(mm, vpn, entry)
        folio.rmap[mm, vpn] = entry
        folio.refcount += 1

    def aged(self, vpn: int, mm: int = MM) -> None:
        """Its accessed bit has been cleared, for which nobody flushes: CPUs hold the entry as it was."""
        tables = self.memory.page_tables
        entry = tables.entry(mm, vpn) & ~ACCESSED
        tables.put(mm, vpn, entry)
        self.memory.folios.folios[pte_pfn(entry)].rmap[mm, vpn] = entry

    def in_page_cache(self, pfn: int, file: int, pgoff: int) -> None:
        """Let the folio be a page of a file; the cache holds a reference."""
        folios = self.memory.folios
        folio = folios.folios[pfn]
        active = folio.lru is True
        folios.lruvec_del_folio(folio)
        folio.mapping = (file, pgoff)
        folios.lruvec_add_folio(folio, active)
        folio.refcount += 1
        folios.page_cache[file, pgoff] = pfn

    def file_size(self, file: int, pages: int) -> None:
        """Let a file end after so many pages. ValueError if the test's files have no sizes."""
        if not self.parameters.file_sizes:
            raise ValueError("litmus setup: files have no sizes without the setting file_sizes")
        self.word(i_size_word(file), pages)

    def on_disk(self, file: int, pgoff: int, version: int) -> None:
        """The content of a file's page where it is stored, cached or not; else it is 0."""
        self.memory.folios.files[file, pgoff] = version

    def unmapped_page(self, file: int, pgoff: int = 0, node: int = FAST, version: int = 0) -> int:
        """A page of a file that is in the page cache and mapped nowhere; its frame."""
        pfn = self._folio(node, 0, version)
        self.memory.folios.folios[pfn].refcount = 0  # that of no mapping
        self.in_page_cache(pfn, file, pgoff)
        return pfn

    def driver_page(self, vpn: int, file: int, mm: int = MM, cached: Iterable[int] = ()) -> int:
        """A page that a driver has mapped at `vpn`, as the first of its file (remap_pfn_range); its frame.

        The one reference is the driver's.
        """
        flags = VM_READ | VM_WRITE | VM_SHARED | VM_PFNMAP
        self.memory.page_tables.mm(mm).areas.append(Vma(vpn, vpn + 1, flags, file))
        self.memory.page_tables.mm(mm).areas.sort()
        pfn = self.page(vpn, writable=True, dirty=True, exclusive=False, mm=mm, cached=cached)
        self.word(i_mmap_word(file, mm, vpn), 1)
        return pfn

    def cache(self, cpu: int, vpn: int, mm: int = MM) -> None:
        """Let a CPU hold the translation of the page as it is now."""
        self.cached.append((cpu, vpn, self.memory.page_tables.entry(mm, vpn)))

    def walk(self, cpu: int, vpn: int, mm: int = MM) -> None:
        """Let a CPU's page walker have cached which table the page is in (`walker_caches`)."""
        self.walked.append((cpu, vpn, self.table_pages.pmd(mm, vpn)))

    def global_asid(self, asid: int, mm: int = MM, taken: bool = True) -> None:
        """Let an mm have this number on all CPUs; unless it is `taken` they still run it under their own."""
        self.word(global_asid_word(mm), asid)
        self.word(GLOBAL_ASID_USED, 1 << asid)
        self.word(LAST_GLOBAL_ASID, asid)
        if not taken:
            self.word(asid_transition_word(mm), 1)
            return
        self.asid = asid
        for cpu in range(self.cpus):
            self.word(loaded_mm_asid_word(cpu), asid)

    def lazily(self, cpu: int) -> None:
        """Let a CPU run a kernel thread, on the address space that it has loaded (lazy TLB mode)."""
        self.lazy.append(cpu)

    @property
    def table_pages(self) -> TablePages:
        """Page-table pages, where they are things. ValueError if the test does not ask for it."""
        tables = self.memory.page_tables
        if not isinstance(tables, TablePages):
            raise ValueError("litmus setup: page tables are no things without the setting walker_caches")
        return tables

    def word(self, name: str, value: int) -> None:
        """A shared word that does not start at 0."""
        self.memory.words.values[name] = value

    def load(self, cpu: int, mm: int) -> None:
        """Let a CPU run another address space than mm 1."""
        self.loaded[cpu] = mm

    def task(self, cpu: int, flags: int) -> None:
        """Flags of the CPU's task; PF_KSWAPD (`emulator.kernel.percpu`) makes its migrations kswapd's."""
        self.flags[cpu] = flags


@dataclass(frozen=True, slots=True)
class Litmus:
    """One question. `programs[n]` runs on CPU n as a user task of mm 1.

    With `drain` CPU 0 waits at the end until all programs are through and lets the policy perform what
    it still owes, so that nothing may be pending after it. `speculated` are the pages that the page
    walker may fetch at any moment on any CPU. `fast`, `slow`: frames of the tiers; `marks` the fast
    tier's watermarks. Needless interrupts are judged unless `frugal` is false. `only`: the test asks about
    policies of this class and is left out for others. `asks`: event counters that programs ask
    (`cpu.counted`), which makes them part of a CPU's state. `mmu`: how flushes are carried out, unless
    somebody asks for another way. `rules`: only these count, all if empty; `ignore`: these do not; wildcards
    welcome, and what the command line says comes on top.
    """

    name: str
    question: str
    programs: tuple[Body, ...]
    setup: Callable[[Setup], None]
    expected: tuple[Expectation, ...]
    drain: bool = True
    frugal: bool = True
    speculated: tuple[int, ...] = ()
    fast: int = 4
    slow: int = 4
    marks: Watermarks = NO_MARKS
    settings: tuple[tuple[str, Any], ...] = ()
    only: type[Policy] = Policy
    asks: tuple[str, ...] = ()
    mmu: str = "x86"
    rules: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """How many CPUs it takes."""
        return len(self.programs)


class LitmusMachine(Machine):
    """A litmus test on one architecture under one policy: builds its start, as often as wanted.

    Raises ValueError for a test that cannot be set up.
    """

    def __init__(
        self,
        litmus: Litmus,
        architecture: Architecture,
        policy: Callable[[], Policy],
        mmu: type[Mmu] | None = None,
    ) -> None:
        mmu = mmu or MMUS[mmu_for(litmus.mmu, architecture.name)]
        tiers = (Tier(litmus.fast, litmus.marks), Tier(litmus.slow, NO_MARKS))
        # Without page lists any CPU may get a frame as soon as another has freed it, which lists only delay.
        settings: dict[str, Any] = {"numa_scan_pages": 0, "per_cpu_pages": False, **mmu.settings}
        # What faults lock is taken only where programs change areas beside them.
        settings["fault_locks"] = needs_fault_locks(litmus.programs)
        settings["folio_locks"] = needs_folio_locks(litmus.programs)
        settings |= dict(litmus.settings)
        if settings.get("walker_caches"):
            settings["leaf_only"] = architecture.leaf_only
        parameters = parameters_of(litmus.cpus, tiers, **settings)
        super().__init__(architecture, parameters, tiers, SHAPE, policy, mmu)
        self.litmus = litmus
        self._start = self._set_up()

    def _set_up(self) -> Setup:
        beside = _beside(self.parameters)
        loaded = [INIT_MM if number in beside else MM for number in range(self.cpus)]
        setup = Setup(super().memory(), self.cpus, self.parameters, loaded=loaded)
        if (answer := self.litmus.setup(setup)) is not None:  # type: ignore[func-returns-value]
            raise ValueError(f"the setup answers {answer!r:.50}, and should answer nothing; call it?")
        on = [*(cpu for cpu, *_ in (*setup.cached, *setup.walked)), *setup.lazy, *setup.flags]
        if strangers := sorted({cpu for cpu in on if not 0 <= cpu < self.cpus}):
            raise ValueError(
                f"litmus setup: CPU {strangers[0]}; there are {self.cpus}, from 0, one a program"
            )
        for mm, mask in _masks(setup).items() if not self.mmu.shared_asids else ():
            setup.word(cpumask_word(mm), mask)
            setup.word(tlb_gen_word(mm), 1)
        for name, value in (words := self.mmu().begins(self.parameters, setup.loaded)[0]).items():
            setup.memory.words.values.setdefault(name, value)
        for cpu in () if words else setup.lazy:
            setup.word(is_lazy_word(cpu), 1)
        for cpu, mm in enumerate(setup.loaded if self.parameters.lazy_mm_cpumask else ()):
            setup.word(loaded_mm_word(cpu), mm)
        return setup

    def memory(self) -> Memory:
        """A fresh memory as it is at the start."""
        return self._set_up().memory

    @property
    def drains(self) -> bool:
        """The test asks for it."""
        return self.litmus.drain

    def watchers(self) -> list[Any]:
        """Fresh checks of what happens before what, for a run from the start."""
        entries = {
            (mm, vpn): entry
            for mm, tables in self._start.memory.page_tables.mms.items()
            for vpn, entry in tables.entries.items()
        }
        lazy = 0 if self.mmu.shared_asids else sum(1 << cpu for cpu in self._start.lazy)
        users = {mm: mask & ~lazy for mm, mask in _masks(self._start).items()}
        for device, mm in self.parameters.devices:
            users[mm] = users.get(mm, 0) | 1 << device
        grace = self.grace_period(users, entries)
        if self._start.asid != 1 or self.mmu.shared_asids:
            grace.facts.begins_with([self._tag(number) for number in range(self.cpus)])
        watchers: list[Any] = [grace, Frugality(grace)] if self.litmus.frugal else [grace]
        if self.parameters.one_size_only:
            loaded = dict(enumerate(self._start.loaded))
            watchers.append(TwoSizes(loaded, self._start.cached, self.parameters.hpage_order))
        return self.heeding(watchers)

    def twins(self) -> list[tuple[int, int]]:
        """CPUs whose programs are the same; not CPU 0 where it drains."""
        programs = self.litmus.programs
        found = []
        for one in range(int(self.drains), self.cpus):
            alike = (other for other in range(one + 1, self.cpus) if same(programs[one], programs[other]))
            found += [(one, other) for other in alike][:1]
        return found

    @property
    def roots(self) -> tuple[Any, ...]:
        """The test's programs, the policy and the mmu."""
        return (*self.litmus.programs, self.policy, self.mmu)

    def kernel(self, number: int) -> PerCpu:
        """Counts for its programs what the test asks."""
        return CountedCpu(number, self.parameters, self.policy(), self.mmu(), self.litmus.asks)

    def _tag(self, number: int) -> int:
        """Under which number a CPU's TLB has what it runs at the start."""
        tags = self.mmu().begins(self.parameters, self._start.loaded)[1]
        return tags[number] if tags else self._start.asid + 1

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """The test's, as a user task that is running already."""
        start, number = self._start, cpu.number
        mm = start.loaded[number]
        cpu.mm = dict(self.parameters.devices).get(number, mm)
        cpu.pcid = self._tag(number)
        cpu.speculated = self.litmus.speculated
        state = kernel.tlbstate
        state.loaded_mm = mm
        state.loaded_mm_asid = start.asid
        state.next_asid = 2
        if start.asid == 1:
            state.ctxs[1].mm = mm
            state.ctxs[1].tlb_gen = 1
        for holder, vpn, entry in start.cached:
            if holder == number:
                cpu.tlb.insert(cpu.pcid if vpn < KERNEL_PAGE else GLOBAL, vpn, entry)
        for holder, vpn, pmd in start.walked:
            if holder == number:
                cpu.tlb.insert_pmd(cpu.pcid if vpn < KERNEL_PAGE else GLOBAL, vpn, pmd)
        state.is_lazy = number in start.lazy and not self.mmu.shared_asids
        cpu.tlb.pcide = uses_pcid(kernel)
        task = Task(PID + number, mm, start.flags.get(number, 0))
        kernel.current = task
        kernel.tasks[task.pid] = task
        program = _program(kernel, self.litmus.programs[number], self.litmus.drain)
        task.context = Context(program)
        return program


def _beside(parameters: KernelParameters) -> set[int]:
    """Which CPUs are in the place of a device or a guest. ValueError for what cannot be one."""
    found = set()
    for name, fields in (("devices", "CPU, mm"), ("guests", "CPU, mm, first page, pages")):
        for one in getattr(parameters, name):
            numbers = isinstance(one, tuple) and all(type(number) is int for number in one)
            if not numbers or len(one) != len(fields.split(",")) or not 0 <= one[0] < parameters.cpus:
                raise ValueError(f"litmus setting {name}: {one!r} is not ({fields}) with a CPU of the test's")
            found.add(one[0])
    return found


def _masks(setup: Setup) -> dict[int, int]:
    """mm to the CPUs that run it at the start, one bit each."""
    loaded = setup.loaded
    mms = {*loaded} - {INIT_MM}
    return {mm: sum(1 << cpu for cpu, on in enumerate(loaded) if on == mm) for mm in mms}


async def _program(kernel: PerCpu, body: Body, drain: bool) -> None:
    answer = await body(kernel)
    if callable(answer):
        raise TypeError(f"the program answers {answer!r:.60}, which nobody calls: await it with the CPU")
    if drain:
        # CPU 0 performs what is owed when everybody is through.
        if kernel.number == 0:
            others = kernel.parameters.cpus - 1
            if others:
                await WaitFor(DONE, others)
            await kernel.policy.drain(kernel)
        else:
            await AtomicAdd(DONE, 1)
    check_kept(kernel.policy, kernel.current.policy_state)
    await Idle()
