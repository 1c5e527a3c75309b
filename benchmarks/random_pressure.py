"""Programs drawn from a seed that run a small fast tier out of blocks of every order, to be run once each.

Not in the catalogue: nobody reads them, there are thousands. One CPU at a time moves pages, allocates and
gives back (a lock sees to that: two that do so at once is the question of `two-allocators`); the others read
through what they have cached and flush for reasons of their own meanwhile. The rule is that no allocation
fails that succeeds once everything pending has been flushed for.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from emulator.checks.violation import Violation
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.operations import AllocPages, FolioPut, FolioZero, GetPte, Lock, Unlock
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import is_migration_entry, pte_pfn, pte_present
from emulator.kernel.page_alloc import OutOfMemory, alloc_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, SLOW, Forbidden, Litmus, LitmusMachine, Setup
from emulator.machine.referee import Referee
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from scenarios.litmus.answers import REUSED
from scenarios.litmus.starts import PAGE, VERSION
from scenarios.litmus.steps import flush_for_own_reasons, move, read_if_cached
from scenarios.mistakes import MISTAKES

RULE = "allocation failed though a flush would have satisfied it"
REFUSED = "pressure_refused"
ALLOCATOR = "pressure.allocator"
MAX_ORDER = 2
PRESSURE_ACTIONS = ("out", "out", "out", "back", "allocate", "allocate", "allocate", "free", "write", "read")
READER_ACTIONS = ("read", "read", "cached", "flush")
STRATEGIES = ("random", "pct:3", "uniform", "delay:3")
CUT = "pressure_cut_off"  # runs that came to no end
STEPS = "pressure_steps"

Step = tuple[str, int]


async def _move(cpu: PerCpu, vpn: int, target: int) -> None:
    entry = await GetPte(MM, vpn)
    if pte_present(entry) and not is_migration_entry(entry) and cpu.parameters.nid(pte_pfn(entry)) != target:
        await move(cpu, pte_pfn(entry), target)


async def _allocate(cpu: PerCpu, order: int) -> int:
    """A block of the fast tier, cleared; -1 if there is none, not even after a flush."""
    try:
        pfn = await alloc_pages(cpu, order, (FAST,))
    except OutOfMemory:
        await cpu.policy.drain(cpu)
        pfn = await AllocPages(FAST, order, 0, 0)
        if pfn >= 0:
            raise Forbidden(RULE, f"order {order} was refused; after a flush there is frame {pfn}") from None
        cpu.count(REFUSED)
        return -1
    cpu.count(f"{REUSED}_{order}")
    await FolioZero(pfn)
    return pfn


async def _under_pressure(cpu: PerCpu, steps: tuple[Step, ...]) -> None:
    held: list[int] = []
    for action, number in steps:
        await Lock(ALLOCATOR)
        if action == "out":
            await _move(cpu, PAGE + number, SLOW)
        elif action == "back":
            await _move(cpu, PAGE + number, FAST)
        elif action == "write":
            await user_write(cpu, PAGE + number, cpu.new_version())
        elif action == "read":
            await user_read(cpu, PAGE + number)
        elif action == "allocate":
            pfn = await _allocate(cpu, number % (MAX_ORDER + 1))
            if pfn >= 0:
                held.append(pfn)
        elif held:
            await FolioPut(held.pop(number % len(held)))
        await Unlock(ALLOCATOR)
    for pfn in held:
        await FolioPut(pfn)


async def _reads(cpu: PerCpu, steps: tuple[Step, ...]) -> None:
    for action, number in steps:
        if action == "flush":
            await flush_for_own_reasons(cpu)
        elif action == "cached":
            await read_if_cached(cpu, PAGE + number)
        else:
            await user_read(cpu, PAGE + number)


def pressure(seed: int) -> Litmus:
    """The program of this seed: two or three CPUs, of which one or two allocate, 4 to 12 fast frames."""
    random = Random(f"pressure {seed}")
    fast = random.randrange(4, 13)
    pages = random.randrange(2, fast + 1)
    cpus = random.choice((2, 3))
    allocating = random.randrange(1, cpus)
    writable = tuple(random.random() < 0.25 for _ in range(pages))
    cached = tuple((cpu, page) for cpu in range(cpus) for page in range(pages) if random.random() < 0.5)

    def setup(start: Setup) -> None:
        start.area(PAGE, pages)
        for page in range(pages):
            start.page(PAGE + page, writable=writable[page], dirty=writable[page], version=VERSION + page)
        for cpu, page in cached:
            start.cache(cpu, PAGE + page)

    def steps(actions: tuple[str, ...], least: int, most: int) -> tuple[Step, ...]:
        length = random.randrange(least, most)
        return tuple((random.choice(actions), random.randrange(pages)) for _ in range(length))

    programs = []
    for cpu in range(cpus):
        if cpu < allocating:
            chosen = steps(PRESSURE_ACTIONS, 6, 18)
            programs.append(lambda kernel, chosen=chosen: _under_pressure(kernel, chosen))
        else:
            chosen = steps(READER_ACTIONS, 2, 8)
            programs.append(lambda kernel, chosen=chosen: _reads(kernel, chosen))
    return Litmus(
        name=f"pressure-{seed}",
        question="Does any allocation fail for want of a flush?",
        programs=tuple(programs),
        setup=setup,
        expected=(),
        frugal=False,
        fast=fast,
        slow=fast + 4,
        marks=random.choice((Watermarks(0, 0, 0), Watermarks(0, 1, 2), Watermarks(1, 2, 3))),
    )


class PressureMachine(LitmusMachine):
    """Keeps the private data of its latest CPUs, to have their counters."""

    kernels: dict[int, PerCpu]

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """As any test's."""
        if cpu.number == 0:
            self.kernels = {}
        self.kernels[cpu.number] = kernel
        return super().program(cpu, kernel)


def run(seed: int, policy: str) -> tuple[Violation | None, Counter[str]]:
    """One program in one interleaving, on an architecture and by a strategy that the seed chooses, all checks
    on: what broke, and what the kernel counted."""
    random = Random(f"run {seed}")
    architecture = ARCHITECTURES[random.choice(list(ARCHITECTURES))]
    machine = PressureMachine(pressure(seed), architecture, {**POLICIES, **MISTAKES}[policy])
    strategy = find_strategy(random.choice(STRATEGIES))()
    tally = search(Referee(machine), strategy, seed, Limits(1), lambda: False)
    counts = Counter({STEPS: tally.steps, CUT: tally.cut})
    for kernel in machine.kernels.values():
        counts.update(kernel.vmstat)
    return tally.violation, counts
