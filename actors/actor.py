"""What both kinds of actor have in common: open an inbox, run one machine, tell the driver how it went.

An actor is reused for one run after another. Each run gets a new inbox, so that a message which an aborted
run left under way can never reach the next one.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import Any, Final

import ray
import zmq

from actors import cluster, wire
from actors.admission import Admission, version
from actors.errors import fault_of
from actors.line import Stopped
from actors.mailbox import Directory, Endpoint, Mailbox
from actors.mode import Mode
from actors.pulse import Pulse
from emulator.hardware.awaits import watch_coroutines
from emulator.machine.builder import Machine
from emulator.machine.progress import broken_by_program

_COLLECT_EVERY: Final = 50  # stressed runs


class MachineActor:
    """An actor numbered as its CPU, or `wire.MEMORY`."""

    def __init__(self, number: int) -> None:
        # Ctrl-C goes to the whole foreground process group; ending actors is the driver's part.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        watch_coroutines()
        self.number = number
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._mailbox: Mailbox | None = None
        self._admission: Admission | None = None
        self._stressed = 0

    def open(self, endpoint: Endpoint | None) -> Endpoint:
        """Open the inbox for the next run, at `endpoint` or (tcp) where there is room; where it is."""
        if self._mailbox is not None:
            self._mailbox.close()
        if endpoint is not None:
            self._settle()
            self._mailbox = Mailbox(self._context, endpoint)
            return endpoint
        if self._admission is None:
            self._admission = Admission(self._context)
        self._mailbox = Mailbox(self._context, None, cluster.node_address())
        return self._mailbox.endpoint._replace(node=ray.get_runtime_context().get_node_id())

    def admit(self, directory: Directory) -> str:
        """On a network: only these inboxes may connect from now on. What version this actor is."""
        assert self._admission is not None
        self._admission.admit(directory)
        return version()

    def _settle(self) -> None:
        """Bind a CPU to one core of this machine: shootdowns are a fifth faster than where it may wander.

        Not on a cluster: there the CPUs of a node need not have consecutive numbers.
        """
        cores = sorted(os.sched_getaffinity(0))
        if self.number != wire.MEMORY and len(cores) > 1:
            os.sched_setaffinity(0, {cores[self.number % len(cores)]})

    def run(self, machine: bytes, directory: Directory, mode: Mode) -> Any:
        """Take part in one run of the pickled machine until the driver ends it; the results.

        Nothing is raised: what goes wrong is sent to the driver at once, because the other actors only
        end when it says so.
        """
        assert self._mailbox is not None
        mailbox, self._mailbox = self._mailbox, None
        driver = mailbox.connect_driver(directory.driver)
        pack = wire.make_packer()
        try:
            loop = self.make_loop(ray.cloudpickle.loads(machine), mailbox, directory, mode)
            driver.send(pack((wire.READY, self.number)))
            message = wire.unpack(mailbox.inbox.recv())
            # Whatever the machine consists of lives as long as the run. Collecting takes longer than a short
            # run, so not before each of many.
            if mode.chaos is None or self._stressed % _COLLECT_EVERY == 0:
                gc.collect()
            self._stressed += mode.chaos is not None
            gc.freeze()
            with Pulse(self._context, directory.driver, self.number, mailbox.keys):
                loop.run(message)
            return loop.results()
        except BaseException as problem:  # a program may raise anything, SystemExit included
            broken = None
            if mode.chaos is not None and isinstance(problem, Exception):
                broken = broken_by_program(self.number, problem)
            if broken is not None:
                driver.send(pack((wire.BROKEN, self.number, *broken)))
            elif not isinstance(problem, Stopped):
                concerned = self.concerned()
                driver.send(pack((wire.FAILED, self.number, concerned, *fault_of(problem))))
            return None
        finally:
            gc.unfreeze()
            mailbox.close()

    def make_loop(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> Any:
        """What this actor does between start and end."""
        raise NotImplementedError

    def concerned(self) -> int:
        """The CPU that was being served when something went wrong."""
        return self.number
