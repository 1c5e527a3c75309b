"""The memory actor: owns what the CPUs share."""

from __future__ import annotations

import ray

from actors.actor import MachineActor
from actors.gate import Gate
from actors.mailbox import Directory, Mailbox
from actors.memory_loop import MemoryLoop
from actors.mode import Mode
from actors.stressed_memory import StressedMemoryLoop
from actors.unplugging import TolerantMemoryLoop
from actors.watched_gate import WatchedGate
from emulator.machine.builder import Machine


class _MemoryActor(MachineActor):
    """Memory, with the gate and the loop that the mode asks for."""

    _loop: MemoryLoop | None = None

    def make_loop(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> MemoryLoop:
        self._loop = None
        memory = machine.memory()
        checks = machine.checks(memory)
        if not mode.watched:
            kind = TolerantMemoryLoop if mode.tolerant else MemoryLoop
            self._loop = kind(Gate(memory, checks), mailbox, directory)
            return self._loop
        driver = mailbox.connect_driver(directory.driver) if mode.recorded else None
        gate = WatchedGate(machine, memory, checks, driver)
        if mode.chaos is None:
            self._loop = MemoryLoop(gate, mailbox, directory)
        else:
            self._loop = StressedMemoryLoop(gate, mailbox, directory, mode.most)
        return self._loop

    def concerned(self) -> int:
        return self._loop.serving if self._loop is not None else self.number


MemoryActor = ray.remote(num_cpus=0, max_restarts=0)(_MemoryActor)
