"""The grace-period check told by hand, one operation after another, and hung onto the small machine."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.checks.grace_period import (
    GracePeriod,
)
from emulator.hardware.cpu import IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    AllocPages,
    CmpxchgPte,
    FlushTlb,
    FolioCopy,
    FolioMigrateMapping,
    FolioPut,
    FolioZero,
    Operation,
    SendIpi,
    TryToMigratePte,
    WaitAcks,
)
from emulator.hardware.pte import DIRTY, PRESENT, RW, make_migration_entry, mk_pte
from tests.kernel.small_machine import SmallMachine

ARCHES = pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
VPN = 0x10
RO = mk_pte(1, PRESENT)
WRITABLE_1 = mk_pte(1, PRESENT | RW | DIRTY)


class Trace:
    """Tells a GracePeriod of two CPUs that both run mm 1, one operation after another."""

    def __init__(self, plain_orders: bool = True, mask: int = 0b11) -> None:
        self.check = GracePeriod(2, plain_orders, {1: mask}, lambda pfn: pfn // 100)
        self.numbers = 0

    def step(self, cpu: int, operation: Operation, answer: Any = None, issued: bool = False) -> None:
        self.check.happened(Transition(Kind.STEP, cpu), operation, issued, answer)

    def unmap(self, cpu: int = 0, entry: int = RO) -> None:
        self.step(cpu, TryToMigratePte(1, VPN, 1), entry)

    def move(self, cpu: int = 0, entry: int = RO, flags: int = PRESENT) -> None:
        """Copy to frame 101 and map that."""
        self.step(cpu, FolioCopy(1, 101))
        self.step(cpu, FolioMigrateMapping(1, 101, 0), True)
        left = make_migration_entry(entry)
        self.step(cpu, CmpxchgPte(1, VPN, left, mk_pte(101, flags)), left)

    def shootdown(self, sender: int = 0, *flushes: Operation) -> None:
        """Flush here and on the other CPU, and wait for it."""
        for operation in flushes or (FlushTlb(),):
            self.step(sender, operation)
        target = 1 - sender
        self.numbers += 1
        number = self.numbers
        self.step(sender, SendIpi((target,), "flush_tlb_func", (1,), True), number)
        batch = (IpiRequest(sender, number, "flush_tlb_func", (1,), True, 0),)
        self.check.happened(Transition(Kind.INTERRUPT, target), None, False, batch)
        for operation in flushes or (FlushTlb(),):
            self.step(target, operation)
        self.step(target, AckIpi(sender, number))
        self.step(sender, WaitAcks(number))

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.check.violations]


def reuse(trace: Trace, cpu: int = 0) -> None:
    trace.step(cpu, FolioPut(1), True)
    trace.step(cpu, AllocPages(0, 0, 0, 0), 1)
    assert not trace.rules, "handing a frame out is not using it"
    trace.step(cpu, FolioZero(1))


def watch(machine: SmallMachine) -> GracePeriod:
    plain_orders = machine.cpus[0].window.architecture.plain_orders
    check = GracePeriod(len(machine.cpus), plain_orders, {}, machine.kernels[0].parameters.nid)
    machine.engine.listeners = [check]
    return check
