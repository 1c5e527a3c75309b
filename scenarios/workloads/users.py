"""What the threads of every kind of workload have in common: who runs where, and how accesses come.

Accesses come in chunks of plain integers (vpn << 1 | is_write), made from the seed alone, so that
every policy sees the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from emulator.kernel.boot import Thread
from emulator.kernel.user import Chunks
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.workloads.settings import Workload

CHUNK = 1000
PRIVATE_WRITABLE = VM_READ | VM_WRITE


@dataclass(frozen=True)
class Users:
    """Threads of one workload on `cpus` CPUs, dealt out to its processes in turn."""

    workload: Workload
    cpus: int
    seed: int

    @property
    def sample_every(self) -> int:
        """Of the accesses of a thread, one in so many is checked in memory."""
        return self.workload.checks.sample_every

    def thread_count(self) -> int:
        return self.cpus * self.workload.threads.per_cpu

    def numbers(self, cpu: int) -> range:
        per_cpu = self.workload.threads.per_cpu
        return range(cpu * per_cpu, (cpu + 1) * per_cpu)

    def threads(self, cpu: int) -> list[Thread]:
        processes = self.workload.threads.processes
        return [Thread(1 + number % processes, partial(self.chunks, number)) for number in self.numbers(cpu)]

    def chunks(self, thread: int) -> Chunks:
        """What one thread does; numbers go on from CPU to CPU."""
        raise NotImplementedError
