"""One session on Ray: runs machines on actors, one after the other, and leaves nothing behind.

The driver takes no part in a run. It tells every actor to start once all are ready, listens on its own inbox
for progress, ends and failures, and ends the run. Actors are kept for the next run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Literal

import ray
import zmq

from actors import cluster, wire
from actors.address import Placement
from actors.admission import Admission, version
from actors.cpu_actor import CpuActor
from actors.errors import Fault, LostActor, ProgramError, SessionError
from actors.live_run import START_PATIENCE_S, Cast, Keep, LiveResult, Progress, Run
from actors.local_ray import cause
from actors.mailbox import Directory, Endpoint, Mailbox, ipc_endpoint
from actors.memory_actor import MemoryActor
from actors.mode import Mode
from actors.placement import nodes, on, places, round_trips
from actors.ray_calls import asked
from emulator.machine.builder import Machine

__all__ = ["Fault", "LiveResult", "LiveSession", "ProgramError", "SessionError", "register"]

Transport = Literal["ipc", "tcp"]

PLAIN: Final = Mode()
_log: Final = logging.getLogger(__name__)
# Who has read nothing for so long is taken to hang, and the run ends without its word.
_ROOM_MS: Final = 1_000


def register(module: ModuleType) -> None:
    """Send classes and functions of `module` along with a machine, for actors that cannot import it."""
    ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]


class LiveSession(cluster.RaySession):
    """Actors on Ray, for one run after another.

    `transport` is tcp with CURVE by default where there is an address, else ipc.
    """

    def __init__(
        self,
        address: str | None = None,
        dashboard: bool = False,
        transport: Transport | None = None,
        placement: Placement = "spread",
    ):
        super().__init__(address, dashboard)
        self._tcp = (transport or ("tcp" if address else "ipc")) == "tcp"
        if address and not self._tcp:
            raise ValueError("ipc reaches one machine only; a cluster needs tcp")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._admission: Admission | None = None
        self._memory: Any = None
        self._cpus: dict[int, Any] = {}
        self._placement: Final = placement
        self._nodes: dict[int, str] = {}  # of actors on a cluster
        self._runs = 0

    def begin(self) -> None:
        self._context = zmq.Context(io_threads=1)
        if self._tcp:
            self._admission = Admission(self._context)

    def end(self) -> None:
        if self._admission is not None:
            if self._admission.refused:
                _log.warning("%d connections of strangers were refused", self._admission.refused)
            self._admission.stop()
            self._admission = None
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
        if self._address:
            self._forget([self._memory, *self._cpus.values()])
        self._memory = None
        self._cpus = {}

    def run(
        self,
        machine: Machine,
        progress: Progress | None = None,
        patience_s: float = 60.0,
        mode: Mode = PLAIN,
        keep: Keep | None = None,
    ) -> LiveResult:
        """Run `machine` to its end. `keep` gets the blocks of a recorded run: events and checksum.

        `progress` is called a few times a second with the total of `accesses`, the accesses of each CPU in
        `cpus`, how many have `halted`, and `elapsed_ns`. ProgramError if a program raises; SessionError if an
        actor dies, or if for `patience_s` seconds no CPU gets anywhere. In a stressed run that silence is a
        violation, as is a deadlock or what a program raises to say that a rule is broken.
        """
        if self._context is None:
            raise SessionError("the session is not open")
        self._runs += 1
        try:
            cast = self._prepare(machine, mode)
        except ray.exceptions.RayError as problem:
            self._forget([self._memory, *self._cpus.values()])
            raise LostActor(f"an actor does not start: {cause(problem)}") from None
        threads = [machine.threads(number) for number in range(machine.cpus)] if mode.tolerant else []
        run = Run(cast, progress, patience_s, keep, mode.chaos is not None, threads)
        if self._address and not mode.chaos:
            run.network = round_trips((cast.directory.memory, *cast.directory.cpus))
        try:
            result = run.result()
            self._forget(run.lost)
            return result
        except Exception:
            self._forget(run.abort())
            raise
        except BaseException:
            run.close()
            # Somebody is waiting at the terminal: no time for goodbyes.
            self._forget([self._memory, *self._cpus.values()])
            raise
        finally:
            run.close()

    def _prepare(self, machine: Machine, mode: Mode) -> Cast:
        """Actors with open inboxes for `machine`, and their calls under way."""
        assert self._context is not None
        where = self._where(machine.cpus)
        if self._memory is None:
            self._memory = asked(MemoryActor.options(**where(wire.MEMORY)).remote, wire.MEMORY)
        for number in range(machine.cpus):
            if number not in self._cpus:
                self._cpus[number] = asked(CpuActor.options(**where(number)).remote, number)
        cpus = [self._cpus[number] for number in range(machine.cpus)]
        actors = [self._memory, *cpus]
        pickled = asked(ray.put, ray.cloudpickle.dumps(machine))  # type: ignore[no-untyped-call]
        places: list[Endpoint] = []
        if self._tcp:
            mailbox = Mailbox(self._context, None, cluster.node_address())
            try:
                directory = self._introduced(mailbox, actors)
            except BaseException:
                mailbox.close()
                raise
        else:
            names = ["m", *(f"c{number}" for number in range(machine.cpus))]
            places = [ipc_endpoint(self.directory, f"{self._runs}{name}") for name in names]
            driver = ipc_endpoint(self.directory, f"{self._runs}d")
            mailbox = Mailbox(self._context, driver, patience_ms=_ROOM_MS)
            directory = Directory(mailbox.endpoint, places[0], tuple(places[1:]))

        def called() -> list[Any]:
            # Together: each question to Ray is another thread's.
            for actor, place in zip(actors, places, strict=False):
                actor.open.remote(place)
            return [actor.run.remote(pickled, directory, mode) for actor in actors]

        try:
            return Cast(mailbox, directory, actors, asked(called))
        except BaseException:
            mailbox.close()
            raise

    def _introduced(self, mailbox: Mailbox, actors: list[Any]) -> Directory:
        """Everybody's inbox on a network, where each admits the others."""
        assert self._admission is not None
        opened = [actor.open.remote(None) for actor in actors]
        inboxes: list[Endpoint] = asked(ray.get, opened, limit_s=START_PATIENCE_S)
        directory = Directory(mailbox.endpoint, inboxes[0], tuple(inboxes[1:]))
        self._admission.admit(directory)
        versions = asked(ray.get, [actor.admit.remote(directory) for actor in actors])
        for inbox, theirs in zip(inboxes, versions, strict=True):
            if theirs != version():
                node = inbox.address.removeprefix("tcp://").rpartition(":")[0]
                raise SessionError(f"the node {node} has another migrc: {theirs}; here {version()}")
        return directory

    def _where(self, cpus: int) -> Callable[[int], dict[str, Any]]:
        """Ray's options for the place of each actor; those that would be elsewhere now are ended."""
        if not self._address:
            return lambda number: {}
        wanted = dict(enumerate(places(nodes(), cpus, self._placement), wire.MEMORY))
        here = [number for number in wanted if number in self._cpus]
        self._forget([self._cpus[number] for number in here if self._nodes[number] != wanted[number]])
        self._nodes |= wanted
        return lambda number: on(wanted[number])

    def _forget(self, lost: list[Any]) -> None:
        """End these actors; the next run has new ones."""
        for actor in lost:
            if actor is not None:
                with contextlib.suppress(Exception):
                    asked(ray.kill, actor)
        if self._memory in lost:
            self._memory = None
        self._cpus = {number: actor for number, actor in self._cpus.items() if actor not in lost}
