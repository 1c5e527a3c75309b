"""A machine of a few CPUs and tens of pages whose user programs are coroutines of the test.

Each program is `async def body(cpu: PerCpu)`, run as a user thread of one mm on one CPU; it uses the
kernel's own functions (`user_read`, `migrate_pages`, ...). The end is the real one: kswapd is stopped,
the address spaces are freed, the policy drains. Who goes next is a seeded random choice, or the test's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.hardware.cpu import Context, Cpu, Kind, Program, Transition
from emulator.hardware.operations import (
    AtomicAdd,
    FolioIsolateLru,
    FolioPutbackLru,
    GetPte,
    Store,
    VmaInsert,
    WaitFor,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import is_migration_entry, pte_pfn, pte_present, ptl
from emulator.hardware.tlb import TlbShape
from emulator.kernel.boot import BOOTED, FIRST_USER_PID, THREADS_DONE, add_kswapd, shutdown
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmzone import FAST_NODE, KSWAPD_WAITING
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import INIT_MM, PerCpu, Task
from emulator.kernel.policy import MR_NUMA_MISPLACED, Policy
from emulator.kernel.sched import cond_resched, cpu_startup_entry, task_program
from emulator.kernel.user import user_read, user_write
from emulator.machine.builder import Machine, parameters_of
from emulator.machine.stepper import plain_engine
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE, Vma
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate

Body = Callable[[PerCpu], Awaitable[None]]

HEAP = 0x100
FILE = 0x200
SHARED = 0x300
PAGES = 16
AREAS = (
    Vma(HEAP, HEAP + PAGES, VM_READ | VM_WRITE, 0),
    Vma(FILE, FILE + PAGES, VM_READ | VM_WRITE, 1),
    Vma(SHARED, SHARED + PAGES, VM_READ | VM_WRITE | VM_SHARED, 2),
)
NO_MARKS = Watermarks(1, 1, 1)


@dataclass(frozen=True)
class Thread:
    cpu: int
    body: Body
    mm: int = 1


class _Threads(Machine):
    """Boots the threads of a `SmallMachine`, keeping every CPU's kernel."""

    def __init__(self, small: SmallMachine, memory: Callable[..., Memory] | None, *parts: Any) -> None:
        super().__init__(*parts)
        self._small = small
        self._memory = memory

    def memory(self) -> Memory:
        return super().memory() if self._memory is None else self._memory(self.tiers)

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        self._small.kernels.append(kernel)
        return self._small.program(kernel)


class SmallMachine:
    """Boots at once; run it with `run`, or drive single CPUs with `drive` first."""

    def __init__(
        self,
        *threads: Thread,
        cpus: int = 2,
        policy: Callable[[], Policy] = Immediate,
        architecture: str = "x86",
        fast: int = 64,
        slow: int = 64,
        marks: Watermarks = NO_MARKS,
        slow_marks: Watermarks = NO_MARKS,
        areas: Sequence[Vma] = AREAS,
        shape: TlbShape | None = None,
        memory: Callable[[Sequence[Tier]], Memory] | None = None,
        **settings: Any,
    ) -> None:
        tiers = (Tier(fast, marks), Tier(slow, slow_marks))
        defaults = {"numa_scan_pages": 0, "per_cpu_pages": False, "forbids_zeropage": True}
        parameters = parameters_of(cpus, tiers, **{**defaults, **settings})
        self.threads = threads
        self.areas = {mm: tuple(areas) for mm in sorted({thread.mm for thread in threads})}
        self.kernels: list[PerCpu] = []
        self.trace: list[Transition] = []
        parts = (ARCHITECTURES[architecture], parameters, tiers, shape or TlbShape(), policy)
        self.engine = plain_engine(_Threads(self, memory, *parts))
        self.memory = self.engine.memory
        self.cpus = self.engine.cpus
        self.coherence, self.accounting = self.engine.checks

    def thread_count(self) -> int:
        return len(self.threads)

    def program(self, kernel: PerCpu) -> Any:
        mine = [thread for thread in self.threads if thread.cpu == kernel.number]
        left = len(mine)

        async def run_thread(thread: Thread) -> None:
            nonlocal left
            await thread.body(kernel)
            await AtomicAdd(THREADS_DONE, 1)
            left -= 1
            if kernel.number == 0 and not left:
                start_shutdown()

        def start_shutdown() -> None:
            task = Task(FIRST_USER_PID - 1, INIT_MM)
            kernel.add_task(task, task_program(kernel, task, shutdown(kernel, self, self.areas)))

        async def start_kernel() -> None:
            if kernel.number == 0:
                for mm, areas in self.areas.items():
                    for area in areas:
                        await VmaInsert(mm, *area)
                await Store(f"{KSWAPD_WAITING}.{FAST_NODE}", 1)
                await Store(BOOTED, 1)
            await WaitFor(BOOTED, 1)
            add_kswapd(kernel)
            for number, thread in enumerate(mine):
                task = Task(FIRST_USER_PID + number, thread.mm)
                kernel.add_task(task, task_program(kernel, task, run_thread(thread)))
            if kernel.number == 0 and not mine:
                start_shutdown()
            await cpu_startup_entry(kernel)

        program = start_kernel()
        kernel.idle.context = Context(program)
        return program

    # --- running -------------------------------------------------------------------------------

    def take(self, transition: Transition) -> None:
        self.trace.append(transition)
        self.engine.take(transition)

    def run(self, seed: int = 0) -> SmallMachine:
        """To the end by seeded choice: uniform, in long stretches, or by priorities that seldom change.

        The last is what holds one CPU at an awkward point while the others get far.
        """
        rng = random.Random(seed)
        chance = (1.0, 0.1, 0.02)[seed % 3]
        order = list(range(len(self.cpus)))
        while True:
            possible = self.engine.transitions()
            if not possible:
                if not self.engine.finished():
                    raise AssertionError(self.engine.deadlock())
                self.engine.finish()
                return self
            if rng.random() < chance:
                rng.shuffle(order)
            first = min(order.index(transition.cpu) for transition in possible)
            self.take(rng.choice([transition for transition in possible if transition.cpu == order[first]]))

    def drive(self, cpu: int, until: Callable[[], bool]) -> None:
        """Let only this CPU go on until the condition holds; the others do no more than serve interrupts."""
        order = (Kind.INTERRUPT, Kind.PERFORM, Kind.STEP)
        if cpu and not self.memory.words.values.get(BOOTED):
            self.drive(0, lambda: bool(self.memory.words.values.get(BOOTED)))
        while not until():
            possible = self.engine.transitions()
            mine = [transition for transition in possible if transition.cpu == cpu]
            serving = [
                transition
                for transition in possible
                if transition.kind is Kind.INTERRUPT or len(self.cpus[transition.cpu].frames) > 1
            ]
            if not mine and not serving:
                raise AssertionError(f"CPU {cpu} cannot go on: {self.engine.deadlock()}")
            self.take(min(mine or serving, key=lambda transition: order.index(transition.kind)))

    def marked(self, name: str) -> Callable[[], bool]:
        """Condition for `drive`: some program has got to `mark(name)`."""
        return lambda: bool(self.memory.words.values.get(f"test.{name}"))

    def moving(self, vpn: int) -> Callable[[], bool]:
        """Condition for `drive`: the page's entry is a migration entry, and its lock is free."""
        return lambda: is_migration_entry(self.entry(vpn)) and ptl(1, vpn) not in self.memory.words.holders

    def at(self, cpu: int, kind: type[Any]) -> Callable[[], bool]:
        """Condition for `drive`: the CPU's next operation is of this kind."""
        return lambda: bool(self.cpus[cpu].frames) and type(self.cpus[cpu].operation) is kind

    # --- looking -------------------------------------------------------------------------------

    @property
    def rules(self) -> set[str]:
        return {violation.rule for violation in self.violations}

    @property
    def violations(self) -> list[Any]:
        return [*self.coherence.violations, *self.accounting.violations]

    def vmstat(self, name: str) -> int:
        return sum(kernel.vmstat.get(name, 0) for kernel in self.kernels)

    def entry(self, vpn: int, mm: int = 1) -> int:
        return self.memory.page_tables.entry(mm, vpn)

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for kernel in self.kernels:
            total.update(kernel.vmstat)
        return total


async def move(cpu: PerCpu, vpns: Sequence[int], node: int, mm: int = 1) -> int:
    """Migrate the folios behind these pages to a node, as one batch; how many went."""
    folios = []
    for vpn in vpns:
        pte = await GetPte(mm, vpn)
        if not (pte_present(pte) and not is_migration_entry(pte)):
            continue
        pfn = pte_pfn(pte)
        if cpu.parameters.nid(pfn) == node or not await FolioIsolateLru(pfn):
            continue
        if cpu.parameters.nid(pfn) == node:
            await FolioPutbackLru(pfn, False)
        else:
            folios.append(pfn)
    moved, failed = await migrate_pages(cpu, folios, node, MR_NUMA_MISPLACED)
    for pfn in failed:
        await FolioPutbackLru(pfn, False)
    return len(moved)


async def demote(cpu: PerCpu, *vpns: int, mm: int = 1) -> int:
    return await move(cpu, vpns, 1, mm)


async def promote(cpu: PerCpu, *vpns: int, mm: int = 1) -> int:
    return await move(cpu, vpns, 0, mm)


def mark(name: str) -> Store:
    """Awaited by a program: others may `after(name)`."""
    return Store(f"test.{name}", 1)


def after(name: str) -> WaitFor:
    return WaitFor(f"test.{name}", 1)


def random_body(seed: int, steps: int, actions: Sequence[str], pages: int = 4) -> Body:
    """A thread that reads, writes, moves and marks random pages of all areas."""

    async def body(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{cpu.number}/{cpu.current.pid}")
        mm = cpu.current.mm
        for _ in range(steps):
            action = rng.choice(actions)
            area = rng.choice((HEAP, FILE, SHARED))
            vpn = area + rng.randrange(pages)
            if action == "read":
                await user_read(cpu, vpn)
            elif action == "write":
                await user_write(cpu, vpn, cpu.new_version())
            elif action == "hint":
                await change_prot_numa(cpu, mm, area, area + pages)
            else:
                some = [area + page for page in rng.sample(range(pages), rng.randrange(1, pages + 1))]
                await move(cpu, some, 1 if action == "demote" else 0, mm)
            await cond_resched(cpu)

    return body
