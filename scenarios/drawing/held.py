"""What TLBs still hold that page tables no longer say, and which functions programs are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CoroutineType
from typing import Any, NamedTuple

from emulator.hardware.cpu import Cpu
from emulator.hardware.pte import PRESENT, RW, describe, pte_pfn
from emulator.memory.memory import Memory


class Held(NamedTuple):
    """One entry of a TLB: what it has, what page tables have there by now, and whether that is less."""

    cpu: int
    pcid: int
    vpn: int
    entry: int
    now: int
    stale: bool

    def __str__(self) -> str:
        return f"CPU {self.cpu} has {self.vpn:#x}: {describe(self.entry)}; by now it is {describe(self.now)}"


def held(cpu: Cpu, memory: Memory) -> Iterator[Held]:
    """All that a CPU's TLB has.

    An entry of an address space that is not loaded is stale if none of all that there are has as much there.
    """
    tables = memory.page_tables
    for pcid, vpn, entry in cpu.tlb.entries():
        spaces = [cpu.mm] if pcid == cpu.pcid else list(tables.mms)
        there = [tables.entry(mm, vpn) for mm in spaces]
        good = [now for now in there if _as_much(now, entry)]
        yield Held(cpu.number, pcid, vpn, entry, (good or there or [0])[0], not good)


def _as_much(now: int, entry: int) -> bool:
    return bool(now & PRESENT) and pte_pfn(now) == pte_pfn(entry) and now & RW >= entry & RW


def functions(cpu: Cpu) -> tuple[str, ...]:
    """The functions that a CPU is in, its handlers' behind its task's."""
    names: list[str] = []
    for frame in cpu.frames:
        program: Any = frame.program
        while isinstance(program, CoroutineType):
            name = program.cr_code.co_name
            # A function of the kernel that asks the mmu's of the same name is one to a reader.
            names += [name] if names[-1:] != [name] else []
            program = program.cr_await
    return tuple(names)


def stale(cpus: Sequence[Cpu], memory: Memory) -> list[Held]:
    """What CPUs hold that page tables do not say any more."""
    return [one for cpu in cpus for one in held(cpu, memory) if one.stale]
