"""User mode: what a thread's accesses do to the TLB, and the faults they raise.

Most accesses of a workload are *touches*: they go through the TLB and cost no operation of their own
when they hit. Some are *checked*: the frame's content version is read or written in memory, so that
a stale translation shows. Every fill is checked by the walk itself, every first write through an
entry is a checked write, and of the hits one in `sample_every` is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    CachedPmd,
    ReadFrame,
    Touch,
    Translate,
    Walk,
    WalkPmd,
    WalkPte,
    WriteFrame,
)
from emulator.hardware.pte import frame_of
from emulator.kernel.fair import task_numa_work
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched, has_ticks, scheduler_tick


@dataclass(frozen=True, slots=True)
class SystemCall:
    """What a thread asks of the kernel between two chunks of its accesses: `call` gets its CPU and its mm.

    Nobody looks at the answer. Entering the kernel and leaving it cost nothing.
    """

    call: Callable[[PerCpu, int], Awaitable[object]]


Chunks = Iterable[Sequence[int] | SystemCall]
"""What a thread does: accesses, each `vpn << 1 | is_write`, some hundred at once, and system calls."""


class ParallelFor(NamedTuple):
    """A loop of `parts` that the threads of a process share: each takes the next one until none is left.

    As `#pragma omp parallel for schedule(dynamic)` does. `accesses` gives those of a part, in chunks; with
    every part begun each thread has made `accesses_each` more, on average.
    """

    parts: int
    accesses_each: int
    accesses: Callable[[int], Chunks]


class Sampling:
    """Which accesses of a thread are checked: one in `every`."""

    __slots__ = ("every", "left")

    def __init__(self, every: int) -> None:
        self.every = every
        self.left = every


def walk(cpu: PerCpu, mm: int, vpn: int, write: bool) -> Awaitable[int]:
    """The page walk of a user access that has missed: the entry, 0 for a page fault."""
    return _walk_tables(mm, vpn, write) if cpu.parameters.walker_caches else Walk(mm, vpn, write)


async def _walk_tables(mm: int, vpn: int, write: bool) -> int:
    """The same, table by table, as far as the CPU has not cached where they are."""
    pmd = await CachedPmd(vpn) or await WalkPmd(mm, vpn)
    # A huge page has no table, and no PMD is none: one step tells.
    return await (WalkPte(mm, vpn, write, pmd) if pmd else Walk(mm, vpn, write))


async def user_read(cpu: PerCpu, vpn: int) -> int:
    """A checked read of one page: its content version."""
    mm = cpu.tlbstate.loaded_mm
    while True:
        pte = await Translate(vpn, False) or await walk(cpu, mm, vpn, False)
        if pte:
            return await ReadFrame(mm, vpn, frame_of(pte, vpn, cpu.parameters.hpage_order))
        await handle_mm_fault(cpu, mm, vpn, False)


async def user_write(cpu: PerCpu, vpn: int, value: int) -> None:
    """A checked write of one page: `value` becomes its content version."""
    mm = cpu.tlbstate.loaded_mm
    while True:
        pte = await Translate(vpn, True) or await walk(cpu, mm, vpn, True)
        if pte:
            await WriteFrame(mm, vpn, frame_of(pte, vpn, cpu.parameters.hpage_order), value)
            return
        await handle_mm_fault(cpu, mm, vpn, True)


async def _fill(cpu: PerCpu, vpn: int, write: bool) -> None:
    """An access that may miss: the walk checks what it fills, a write is a checked one."""
    mm = cpu.tlbstate.loaded_mm
    while True:
        if await Translate(vpn, write):
            return
        cpu.count("dtlb_walks")
        pte = await walk(cpu, mm, vpn, write)
        if pte:
            if write:
                pfn = frame_of(pte, vpn, cpu.parameters.hpage_order)
                await WriteFrame(mm, vpn, pfn, cpu.new_version())
            return
        await handle_mm_fault(cpu, mm, vpn, write)


async def run_accesses(
    cpu: PerCpu,
    chunks: Chunks,
    sampling: Sampling,
    numa_areas: tuple[tuple[int, int], ...],
    now: int | None = None,
) -> None:
    """One thread's user mode: its accesses and system calls, one after another.

    `numa_areas` are what the NUMA scanner may mark. It is paced by the CPU's accesses, or it is `now` for it.
    """
    mm = cpu.tlbstate.loaded_mm
    ticks = has_ticks(cpu)
    for accesses in chunks:
        cpu.now = cpu.accesses if now is None else now
        if ticks and cpu.accesses >= cpu.ticks_at:
            cpu.ticks_at = cpu.accesses + cpu.parameters.tick_accesses
            await scheduler_tick(cpu)
        if isinstance(accesses, SystemCall):
            await accesses.call(cpu, mm)
            await cond_resched(cpu)
            continue
        at = 0
        end = len(accesses)
        while at < end:
            stop = min(end, at + sampling.left)
            reached = await Touch(accesses, at, stop)
            done = reached - at
            if reached < stop:
                access = accesses[reached]
                await _fill(cpu, access >> 1, bool(access & 1))
                done += 1
            cpu.accesses += done
            at += done
            sampling.left -= done
            if cpu.need_resched:
                # exit_to_user_mode_loop: an interrupt has woken somebody who goes first.
                await cond_resched(cpu)
            if not sampling.left:
                sampling.left = sampling.every
                cpu.sampled_hits += 1
                access = accesses[at - 1]
                if access & 1:
                    await user_write(cpu, access >> 1, cpu.new_version())
                else:
                    await user_read(cpu, access >> 1)
        await task_numa_work(cpu, mm, numa_areas, cpu.accesses if now is None else now)
        await cond_resched(cpu)


async def run_parallel_for(
    cpu: PerCpu, loop: ParallelFor, sampling: Sampling, numa_areas: tuple[tuple[int, int], ...]
) -> None:
    """One thread's share of a loop, whatever that comes to."""
    counter = f"parallel_for.{cpu.tlbstate.loaded_mm}"
    while (part := await AtomicAdd(counter, 1) - 1) < loop.parts:
        await run_accesses(cpu, loop.accesses(part), sampling, numa_areas, part * loop.accesses_each)
