"""Machines that run the kernel model, as a description: what they consist of and what their CPUs boot.

Litmus tests, workloads and tests differ in what a CPU boots and in how memory looks at the start; all else
is put together here. A description can be built from as often as a search needs it, and travels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from emulator.checks.accounting import Accounting
from emulator.checks.coherence import Coherence
from emulator.checks.grace_period import STRICT, GracePeriod
from emulator.checks.heed import ALL, Heed, Noted
from emulator.checks.luf_debug import OWING, LufDebug
from emulator.checks.table_walks import TableWalks
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.ordering import Architecture
from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.tlb import TlbShape
from emulator.kernel.instead import make_way
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.smp import interrupt_entry
from emulator.kernel.versions import DEFAULT, VERSIONS
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.table_pages import TablePages


def parameters_of(
    cpus: int, tiers: Sequence[Tier], first: int = 1, version: str = DEFAULT, **settings: Any
) -> KernelParameters:
    """Kernel parameters of a machine whose tiers lie one after the other from frame `first` on.

    They are those of the version of the kernel, unless `settings` says otherwise.
    """
    starts = [first]
    for tier in tiers:
        starts.append(starts[-1] + tier.pages)
    marks = tuple(tier.watermarks for tier in tiers)
    chosen = {**VERSIONS[version], **settings}
    return KernelParameters(cpus, marks, tuple(starts), version=version, **chosen)


class Machine(ABC):
    """One machine to run. `policy` and `mmu` make one object per CPU, `heed` says which broken rules count.

    Live it is pickled to every actor: the memory actor takes its `memory` and `checks` from it, the actor of
    CPU n takes `cpu(n)`. What they hand back at the end is plain values.
    """

    heed: Heed = ALL

    def __init__(
        self,
        architecture: Architecture,
        parameters: KernelParameters,
        tiers: Sequence[Tier],
        shape: TlbShape,
        policy: Callable[[], Policy],
        mmu: type[Mmu] = X86,
    ) -> None:
        self.architecture = architecture
        self.parameters = parameters
        self.tiers = tuple(tiers)
        self.shape = shape
        self.policy = policy
        self.mmu = mmu
        # Before anybody looks at what programs can reach.
        make_way(type(policy()))

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""
        return self.parameters.cpus

    def threads(self, number: int) -> int:
        """How many user threads a CPU boots."""
        return 0

    @property
    def drains(self) -> bool:
        """It performs what it owes before it comes to rest, so that watchers may judge its end."""
        return True

    @property
    def debugs(self) -> bool:
        """Policies' own debugging is compiled in: if its rule is asked for."""
        return self.heed.asks(OWING)

    def memory(self) -> Memory:
        """The shared memory, as at power-on."""
        parameters = self.parameters
        lists = parameters.cpus if parameters.per_cpu_pages else 0
        return Memory(
            self.tiers,
            parameters.hpage_order,
            parameters.starts[0],
            lists,
            parameters.memory_scale,
            parameters.walker_caches,
            parameters.fault_locks,
        )

    def checks(self, memory: Memory) -> list[Any]:
        """What watches the memory's operations."""
        policy = self.policy()
        coherence = Coherence(memory, policy.frees_before_flush)
        checks: list[Any] = [coherence, Accounting(memory, policy)] if self.drains else [coherence]
        if policy.luf_debug and self.debugs:
            checks.append(LufDebug(memory, self.cpus))
        if isinstance(memory.page_tables, TablePages):
            checks.append(TableWalks(memory.page_tables))
        return self.heeding(checks)

    def watchers(self) -> list[Any]:
        """What judges by happens-before: by default no CPU runs anything at power-on."""
        return self.heeding([self.grace_period({}, {})])

    def heeding(self, checks: list[Any]) -> list[Any]:
        """The same, which note only what counts."""
        if self.heed:
            for one in checks:
                one.violations = Noted(self.heed)
        return checks

    def grace_period(self, masks: dict[int, int], entries: dict[tuple[int, int], int]) -> GracePeriod:
        """That check, from the CPUs that run each mm at the start and the page-table entries then."""
        parameters = self.parameters
        plain_orders = self.architecture.plain_orders
        devices = sum(1 << device for device, _ in parameters.devices)
        by_loading = self.mmu.shared_asids
        return GracePeriod(
            self.cpus,
            plain_orders,
            masks,
            parameters.nid,
            entries,
            parameters.hpage_order,
            devices,
            frozenset(filter(self.heed.asks, STRICT)),
            by_loading,
        )

    @property
    def roots(self) -> tuple[Any, ...]:
        """Functions and classes that programs are made of: what these reach, all CPUs can reach."""
        return (self.policy, self.mmu)

    def kernel(self, number: int) -> PerCpu:
        """What a CPU's kernel keeps for itself."""
        return PerCpu(number, self.parameters, self.policy(), self.mmu())

    def cpu(self, number: int) -> tuple[Cpu, Program, PerCpu]:
        """One CPU, the program that it boots, and its kernel's private data."""
        kernel = self.kernel(number)
        make_way(type(kernel.policy))
        order = self.parameters.hpage_order or PMD_ORDER
        caches, miss = self.parameters.walker_caches, self.parameters.invlpg_miss
        cpu = Cpu(number, self.architecture, self.shape, interrupt_entry(kernel), order, caches, miss)
        if not self.parameters.beside >> number & 1:
            cpu.invalidators = kernel.mmu.invalidators(self.parameters)
        return cpu, self.program(cpu, kernel), kernel

    def twins(self) -> list[tuple[int, int]]:
        """CPUs that boot the same and so may be alike, each and the next one of its kind."""
        return []

    @abstractmethod
    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """What a CPU boots, after setting it up."""
