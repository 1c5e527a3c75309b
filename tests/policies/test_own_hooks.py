"""A policy from outside: ticks, mms that are dropped, entries, and a thread of its own."""

from __future__ import annotations

import ast
from array import array
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from emulator.checks.heed import Heed
from emulator.explore.compiled.runs import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.operations import AtomicXchg, Store
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.kernel import pgtable_generic as why
from emulator.kernel.boot import Thread, boot_program
from emulator.kernel.percpu import PerCpu, Task
from emulator.kernel.policy import Policy
from emulator.kernel.sched import kthread_wait, policy_pid, wake_up_process
from emulator.machine.builder import Machine, parameters_of
from emulator.machine.litmus import MM, Litmus, LitmusMachine
from emulator.measure.costs import Costs
from emulator.memory.folios import Tier
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.memory.zone import Watermarks
from emulator.timed.engine import TimedEngine
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, in_order, mover
from scenarios.litmus.syscalls import drop_mm, exits, policy_thread, tick
from scenarios.subjects.hooks import check_hooks

WORK = "own.work"
CPUS = 2
ACCESSES = 60
TICK = 20


class Own(Policy):
    """Each tick of CPU 0 gives the thread on CPU 1 something to do."""

    name = "own"
    words_at_rest = (WORK,)

    async def tick(self, cpu: PerCpu) -> None:
        cpu.count("ticks")
        if cpu.number == 0:
            await Store(WORK, 1)
            await wake_up_process(cpu, 1, policy_pid(0))

    async def mm_dropped(self, cpu: PerCpu, mm: int) -> None:
        cpu.count(f"dropped.{mm}")

    async def entry(self, cpu: PerCpu, mm: int, vpn: int, pte: int, why: str) -> None:
        cpu.count(f"entry.{why}")

    def threads(self, cpu: PerCpu) -> tuple[Callable[..., Coroutine[Any, Any, None]], ...]:
        return (self._works,) if cpu.number == 1 else ()

    async def _works(self, cpu: PerCpu, task: Task) -> None:
        while await kthread_wait(cpu, task, WORK):
            await AtomicXchg(WORK, 0)
            cpu.count("rounds")


class Reads:
    """One process with a thread on each CPU, which reads its pages in turn."""

    sample_every = 1_000

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        return {MM: (Vma(PAGE, PAGE + 4, VM_READ | VM_WRITE, 0),)}

    def threads(self, cpu: int) -> list[Thread]:
        def chunks() -> Iterable[Sequence[int]]:
            for _ in range(ACCESSES // 10):
                yield array("Q", [PAGE + at % 4 << 1 | at % 2 for at in range(10)])

        return [Thread(MM, chunks)]

    def thread_count(self) -> int:
        return CPUS

    def expected_accesses(self) -> int:
        return CPUS * ACCESSES


class Booted(Machine):
    def __init__(self) -> None:
        tiers = (Tier(32, Watermarks(1, 1, 1)), Tier(32, Watermarks(1, 1, 1)))
        parameters = parameters_of(CPUS, tiers, tick_accesses=TICK, numa_scan_pages=0)
        super().__init__(ARCHITECTURES["x86"], parameters, tiers, TlbShape(), Own)

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        return boot_program(kernel, Reads())


def test_a_run_from_boot_to_the_end_tells_all_of_it() -> None:
    check_hooks(Own(), Policy)
    engine = TimedEngine(Booted(), Costs())
    result = engine.run()
    counted: dict[str, int] = {}
    for one in result.cpus:
        for name, times in one["vmstat"].items():
            counted[name] = counted.get(name, 0) + times
    assert counted["ticks"] == CPUS * (ACCESSES // TICK - 1)
    assert counted[f"dropped.{MM}"] == 1
    assert counted[f"entry.{why.FAULT}"] >= 4
    assert 1 <= counted["rounds"] <= ACCESSES // TICK - 1
    assert not result.violations


class FlushesInAThread(Own):
    """What a tick has asked for, the thread does: it flushes what the move of a page has left to it."""

    async def tick(self, cpu: PerCpu) -> None:
        await Store(WORK, 1)

    async def mm_dropped(self, cpu: PerCpu, mm: int) -> None:
        cpu.count("dropped")


def reached(test: Litmus) -> frozenset[str]:
    machine = LitmusMachine(test, ARCHITECTURES["x86"], FlushesInAThread)
    machine.heed = Heed()
    explorer = LearnedMachine(machine)
    tally = exhaust(explorer, max_states=20_000)
    assert tally.complete and tally.violation is None
    return frozenset(explorer.reached)


def test_in_a_litmus_test_the_thread_is_a_program_and_goes_round_once() -> None:
    programs = (in_order(mover, call(tick)), in_order(call(policy_thread)))
    assert {"rounds", f"entry.{why.MIGRATED}"} <= reached(
        Litmus("thread", "", programs, pages(PAGE, cached=()), (), frugal=False)
    )


def test_a_dropped_mm_is_told_once_it_is_gone() -> None:
    programs = (in_order(call(exits, 2), call(drop_mm, 2)), in_order(call(tick)))
    setup = pages(PAGE, cached=())
    found = reached(Litmus("dropped", "", programs, setup, (), frugal=False, drain=False))
    assert "dropped" in found


INSTALLS = {"SetPte", "XchgPte", "CmpxchgPte", "PopulatePmd", "CollapsePmd"}
# These take something away, or leave what no walker reads.
NOT_PRESENT = {
    ("fork.py", "copy_nonpresent_pte"), ("fork.py", "copy_swap_pte"), ("fork.py", "copy_present_pte"),
    ("huge_memory.py", "pmdp_invalidate"), ("madvise.py", "_clear_bits"),
    ("mprotect.py", "change_prot_numa"), ("mremap.py", "move_ptes"), ("rmap.py", "try_to_unmap_one"),
    ("task_mmu.py", "clear_soft_dirty"),
}  # fmt: skip


def _is(call: ast.Call, *names: str) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in names


def _installed_elsewhere(file: Path) -> set[tuple[str, str]]:
    """Functions of a kernel file that await an operation of these outside of set_pte_at, but to clear."""
    found = set()
    for function in ast.walk(ast.parse(file.read_text())):
        if not isinstance(function, ast.AsyncFunctionDef) or function.name == "set_pte_at":
            continue
        calls = [one for one in ast.walk(function) if isinstance(one, ast.Call)]
        changes = [one.args[1] for one in calls if _is(one, "set_pte_at")]
        named = {one.id for one in changes if isinstance(one, ast.Name)}
        for one in ast.walk(function):
            if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", "") in named:
                changes.append(one.value)
        for one in calls:
            if not _is(one, *INSTALLS) or any(one is change for change in changes):
                continue
            new = one.args[3 if _is(one, "CmpxchgPte") else 2]
            if not (isinstance(new, ast.Constant) and new.value == 0):
                found.add((file.name, function.name))
    return found


def test_present_entries_are_installed_in_one_place() -> None:
    files = sorted((Path(__file__).parents[2] / "emulator" / "kernel").glob("*.py"))
    assert set().union(*map(_installed_elsewhere, files)) == NOT_PRESENT
