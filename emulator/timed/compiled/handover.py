"""What goes over to the compiled side when a machine starts, and comes back at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.hardware.cpu import Cpu
from emulator.hardware.pte import PMD_ORDER, pte_pfn
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import TouchPrice
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine
from emulator.memory.page_table import PageTables
from emulator.timed.compiled.compiled_tlb import CompiledTlb
from emulator.timed.compiled.touches import Touches, fits


def hand_over(
    machine: Machine,
    cpus: Sequence[Cpu],
    page_tables: PageTables,
    price: TouchPrice,
    walk_ns: int,
    ahead: int,
) -> Touches | None:
    """The compiled side, which has the CPUs' TLBs from now on and hears of every entry; None if there can be
    none, or there is no `wasmtime`."""
    shape = machine.shape
    tlbs = [cpu.tlb for cpu in cpus]
    if not tlbs or not fits(shape, tlbs):
        return None
    order = machine.parameters.hpage_order or PMD_ORDER
    counters = [tlb.counters if isinstance(tlb, CountingTlb) else None for tlb in tlbs]
    try:
        touches = Touches(len(cpus), shape, order, price, walk_ns, ahead, counters[0] is not None)
    except ImportError:
        return None
    for cpu, counted in zip(cpus, counters, strict=True):
        cpu.tlb = CompiledTlb(touches, cpu.number, shape, {} if counted is None else counted, order)
    for number, mm in page_tables.mms.items():
        for vpn, entry in mm.entries.items():
            known = page_tables.folios.folio_of(pte_pfn(entry)) is not None
            touches.entry_is(number, vpn, entry if known else 0)
    page_tables.entry_is = touches.entry_is
    return touches


def settle(touches: Touches, cpus: Sequence[Cpu], kernels: Sequence[PerCpu], checks: Sequence[Any]) -> None:
    """Count what has been done there, at the end."""
    for cpu, kernel in zip(cpus, kernels, strict=True):
        walks, _ = touches.counted(cpu.number)
        if walks:
            cpu.walks += walks
            kernel.count("dtlb_walks", walks)
            for check in checks:
                check.walked(walks)
        if isinstance(cpu.tlb, CompiledTlb):
            cpu.tlb.settle()
