"""A workload made into a machine: memory, checks and CPUs, the same for every engine.

A machine travels to the processes that run its parts, so it holds only what describes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import TlbShape
from emulator.kernel.boot import UserSpace, boot_program
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.builder import Machine, parameters_of
from emulator.measure.pending import PendingPeak
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import setup_per_zone_wmarks
from scenarios.workloads.settings import Workload
from scenarios.workloads.watermarks import fast_watermarks


class ScenarioMachine(Machine):
    """One workload under one policy."""

    def __init__(self, user: UserSpace, *parts: Any) -> None:
        super().__init__(*parts)
        self.user = user

    def checks(self, memory: Memory) -> list[Any]:
        """What watches the memory's operations: the checks, and the pending meter last."""
        return [*super().checks(memory), PendingPeak(memory, self.policy())]

    def threads(self, number: int) -> int:
        """Those of the workload."""
        return len(self.user.threads(number))

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """Boots the kernel, whose CPU counts what its TLB is filled with again."""
        cpu.tlb = CountingTlb(self.shape, kernel.vmstat, self.parameters.hpage_order or PMD_ORDER)
        return boot_program(kernel, self.user)


def build_machine(
    workload: Workload,
    cpus: int,
    architecture: str,
    policy: Callable[[], Policy],
    user: UserSpace,
    mmu: type[Mmu] = X86,
) -> ScenarioMachine:
    """Put a validated workload together with the programs that run on it."""
    memory, kernel = workload.memory, workload.kernel
    tiers = (
        Tier(memory.fast_pages, fast_watermarks(memory.fast_pages, memory.min_free_pages)),
        Tier(memory.slow_pages, setup_per_zone_wmarks(memory.slow_pages, memory.slow_min_free_pages or 1)),
    )
    parameters = parameters_of(
        cpus,
        tiers,
        1 << kernel.hpage_order,  # The fast tier begins where a huge page may (frame 1 without).
        memory_scale=memory.divided_by,
        forbids_zeropage=True,  # Programs have written what they read; here nobody fills the heaps first.
        # What the file leaves open is the version's.
        **{**mmu.settings, **workload.parameters, **kernel.model_dump(include=kernel.model_fields_set)},
    )
    shape = TlbShape(*(getattr(workload.tlb, field) for field in TlbShape._fields))
    return ScenarioMachine(user, ARCHITECTURES[architecture], parameters, tiers, shape, policy, mmu)
