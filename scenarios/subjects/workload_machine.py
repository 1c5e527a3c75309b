"""A workload made into a machine: memory, checks and CPUs, the same for every engine.

A machine travels to the processes that run its parts, so it holds only what describes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.checks.accounting import Accounting
from emulator.checks.coherence import Coherence
from emulator.checks.grace_period import GracePeriod
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.ordering import ARCHITECTURES, Architecture
from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import TlbShape
from emulator.kernel.boot import UserSpace, boot_program
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.smp import interrupt_entry
from emulator.measure.pending import PendingPeak
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import setup_per_zone_wmarks
from scenarios.workloads.settings import Workload
from scenarios.workloads.watermarks import fast_watermarks


@dataclass(frozen=True)
class ScenarioMachine:
    """One workload on `cpus` CPUs under one policy."""

    cpus: int
    architecture: str
    parameters: KernelParameters
    tiers: tuple[Tier, ...]
    shape: TlbShape
    policy: Callable[[], Policy]
    user: UserSpace

    def memory(self) -> Memory:
        """The shared memory, as at power-on."""
        return Memory(self.tiers, self.parameters.hpage_order, self.parameters.starts[0])

    def checks(self, memory: Memory) -> list[Any]:
        """What watches the memory's operations: the checks, and the pending meter last."""
        policy = self.policy()
        coherence = Coherence(memory, policy.frees_before_flush)
        return [coherence, Accounting(memory, policy), PendingPeak(memory, policy)]

    def watchers(self, memory: Memory) -> list[Any]:
        """What judges by happens-before: no CPU runs anything at power-on.

        Needless interrupts are not judged here: the postings cause some by design, and nothing breaks.
        """
        row = self.architecture_row
        order = self.parameters.hpage_order
        return [GracePeriod(self.cpus, row.plain_orders, {}, self.parameters.nid, hpage_order=order)]

    @property
    def architecture_row(self) -> Architecture:
        """What may wait in a CPU's window."""
        return ARCHITECTURES[self.architecture]

    def cpu(self, number: int) -> tuple[Cpu, Program, PerCpu]:
        """One CPU, the program that it boots, and its kernel's private data."""
        kernel = PerCpu(number, self.parameters, self.policy())
        order = self.parameters.hpage_order or PMD_ORDER
        cpu = Cpu(number, self.architecture_row, self.shape, interrupt_entry(kernel), order)
        cpu.tlb = CountingTlb(self.shape, kernel.vmstat, order)
        return cpu, boot_program(kernel, self.user), kernel


def build_machine(
    workload: Workload, cpus: int, architecture: str, policy: Callable[[], Policy], user: UserSpace
) -> ScenarioMachine:
    """Put a validated workload together with the programs that run on it."""
    memory, kernel = workload.memory, workload.kernel
    tiers = (
        Tier(memory.fast_pages, fast_watermarks(memory.fast_pages, memory.min_free_pages)),
        Tier(memory.slow_pages, setup_per_zone_wmarks(memory.slow_pages, 1)),
    )
    # The fast tier begins where a huge page may (frame 1 without).
    first = 1 << kernel.hpage_order
    second = first + memory.fast_pages
    parameters = KernelParameters(
        cpus=cpus,
        watermarks=tuple(tier.watermarks for tier in tiers),
        starts=(first, second, second + memory.slow_pages),
        memory_scale=memory.divided_by,
        **kernel.model_dump(),
    )
    shape = TlbShape(*(getattr(workload.tlb, field) for field in TlbShape._fields))
    return ScenarioMachine(cpus, architecture, parameters, tiers, shape, policy, user)
