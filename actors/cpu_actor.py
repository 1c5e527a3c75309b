"""The CPU actor: one simulated CPU, with the loop that the mode asks for."""

from __future__ import annotations

import ray

from actors.actor import MachineActor
from actors.cpu_loop import CpuLoop
from actors.mailbox import Directory, Mailbox
from actors.mode import Mode
from actors.stressed_cpu import StressedCpuLoop
from actors.unplugging import TolerantCpuLoop
from actors.watched_cpu import WatchedCpuLoop
from emulator.machine.builder import Machine


class _CpuActor(MachineActor):
    """One simulated CPU."""

    def make_loop(
        self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode
    ) -> CpuLoop | StressedCpuLoop:
        if mode.chaos is not None:
            return StressedCpuLoop(self.number, machine, mailbox, directory, mode.chaos)
        if mode.tolerant:
            return TolerantCpuLoop(self.number, machine, mailbox, directory)
        kind = WatchedCpuLoop if mode.watched else CpuLoop
        return kind(self.number, machine, mailbox, directory)


CpuActor = ray.remote(num_cpus=0, max_restarts=0)(_CpuActor)
