"""One session on Ray: runs machines on actors, one after the other, and leaves nothing behind.

The driver takes no part in a run. It tells every actor to start once all are ready, listens on its own inbox
for progress, ends and failures, and ends the run. Actors are kept for the next run.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, Literal

import ray
import zmq

from actors import cluster, wire
from actors.address import Placement
from actors.admission import Admission, version
from actors.calls import CpuReport
from actors.core_wait import shares
from actors.cpu_actor import CpuActor
from actors.errors import Fault, LostActor, ProgramError, SessionError, Silence
from actors.gate import MemoryReport
from actors.local_ray import cause, first_line
from actors.mailbox import Directory, Endpoint, Mailbox, ipc_endpoint
from actors.memory_actor import MemoryActor
from actors.mode import Mode
from actors.placement import nodes, on, places, round_trips
from actors.pulse import LATE_S, LOST_S
from actors.ray_calls import asked
from emulator.checks.violation import Violation
from emulator.machine.builder import Machine
from emulator.machine.progress import DEADLOCK, silence
from emulator.measure.histogram import Histogram

__all__ = ["Fault", "LiveResult", "LiveSession", "ProgramError", "SessionError", "register"]

Transport = Literal["ipc", "tcp"]
Progress = Callable[[dict[str, Any]], None]
Keep = Callable[[tuple[int, ...], int], None]

PLAIN: Final = Mode()
_log: Final = logging.getLogger(__name__)
_LOOK_MS: Final = 250
_ABORT_S: Final = 3.0
_AGAIN_S: Final = 0.3
# Who has read nothing for so long is taken to hang, and the run ends without its word.
_ROOM_MS: Final = 1_000
_RESULTS_S: Final = 60.0
_WAITS_S: Final = 2.0
# Starting one more actor takes a second or so on a small machine, longer where many start at once.
_START_PATIENCE_S: Final = 120.0


def register(module: ModuleType) -> None:
    """Send classes and functions of `module` along with a machine, for actors that cannot import it."""
    ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]


@dataclass(slots=True, frozen=True)
class LiveResult:
    """What one run found. Times in ns; `elapsed_ns` is from the start of all CPUs to the end of the last.

    `cpus` has one kernel result for each CPU, in order, and so has `tlb_interrupts`. `delivery` is empty
    where no two CPUs share a node. A stressed run that a broken rule has ended (`cut`) lacks the results of
    CPUs that could give none, and `tlbs` unless all had come to rest. `core_wait`: by kind of latency the
    share that was waiting for a core, and under `memory` the share of the run that the memory actor was;
    empty where the system does not tell. `network`: on a cluster the address of each node
    with actors, and its round trip from the driver's.
    """

    cpus: list[dict[str, Any]]
    tlb_interrupts: list[int]
    memory: dict[str, Any]
    violations: list[Violation]
    accesses: int
    elapsed_ns: int
    delivery: Histogram
    handler: Histogram
    round_trip: Histogram
    tlbs: list[Any]
    cut: bool = False
    core_wait: dict[str, float] = field(default_factory=dict)
    network: dict[str, int] = field(default_factory=dict)


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
        run = _Run(cast, progress, patience_s, keep, mode.chaos is not None)
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

    def _prepare(self, machine: Machine, mode: Mode) -> _Cast:
        """Actors with open inboxes for `machine`, and their calls under way."""
        assert self._context is not None
        where = self._where(machine.cpus)
        if self._memory is None:
            self._memory = MemoryActor.options(**where(wire.MEMORY)).remote(wire.MEMORY)
        for number in range(machine.cpus):
            if number not in self._cpus:
                self._cpus[number] = CpuActor.options(**where(number)).remote(number)
        cpus = [self._cpus[number] for number in range(machine.cpus)]
        actors = [self._memory, *cpus]
        pickled = asked(ray.put, ray.cloudpickle.dumps(machine))  # type: ignore[no-untyped-call]
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
            for actor, place in zip(actors, places, strict=True):
                actor.open.remote(place)
            directory = Directory(mailbox.endpoint, places[0], tuple(places[1:]))
        calls = [actor.run.remote(pickled, directory, mode) for actor in actors]
        return _Cast(mailbox, directory, actors, calls)

    def _introduced(self, mailbox: Mailbox, actors: list[Any]) -> Directory:
        """Everybody's inbox on a network, where each admits the others."""
        assert self._admission is not None
        opened = [actor.open.remote(None) for actor in actors]
        inboxes: list[Endpoint] = asked(ray.get, opened, limit_s=_START_PATIENCE_S)
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


@dataclass(slots=True, frozen=True)
class _Cast:
    """The actors of one run, the memory actor first, and the pending result of each."""

    mailbox: Mailbox
    directory: Directory
    actors: list[Any]
    calls: list[Any]


@dataclass(slots=True)
class _Run:
    """One run as the driver sees it."""

    cast: _Cast
    progress: Progress | None
    patience_s: float
    keep: Keep | None
    stressed: bool
    lost: list[Any] = field(default_factory=list)  # actors that did not come along when the run was cut
    broken: list[Violation] = field(default_factory=list)
    kept: int = 0  # transitions that blocks have told of
    accesses: dict[int, int] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    halted: set[int] = field(default_factory=set)
    rested: set[int] = field(default_factory=set)
    pulses: dict[int, float] = field(default_factory=dict)  # when each actor was last heard of
    waits: dict[int, str] = field(default_factory=dict)
    started_ns: int = 0
    looked_s: float = 0.0
    network: dict[str, int] = field(default_factory=dict)
    pack: Callable[[Any], bytes] = field(default_factory=wire.make_packer)

    def __post_init__(self) -> None:
        self.accesses = dict.fromkeys(range(len(self.cast.directory.cpus)), 0)

    def result(self) -> LiveResult:
        """Start, watch, end."""
        self._await_all(self.ready, len(self.cast.actors), _START_PATIENCE_S, self._unready)
        self.started_ns = time.monotonic_ns()
        self._tell_all(wire.GO)
        try:
            if self.stressed:
                # Somebody may still take a call that nobody waits for.
                self._await_all(self.rested, 1, self.patience_s, self._stuck)
            else:
                self._await_all(self.halted, len(self.accesses), self.patience_s, self._stuck)
        except Silence as problem:
            if not self.stressed:
                raise
            self.broken.append(problem.violation)
        elapsed_ns = time.monotonic_ns() - self.started_ns
        memory, *reports = self._cut() if self.broken else self._results()
        if self.keep is not None and memory is not None:
            # The last block may come behind the results.
            transitions = memory.results["transitions"]
            while self.kept < transitions and (message := self._receive(int(_WAITS_S * 1000))):
                self._take(message)
            if self.kept < transitions:
                lost = transitions - self.kept
                raise SessionError(f"{lost} of {transitions} recorded transitions were lost")
        if memory is None or (None in reports and not self.broken):
            # A last word of failure is on its way.
            self._last_words(2.0)
            raise SessionError("an actor ended without results")
        return self._merge(memory, reports, elapsed_ns)

    def _results(self) -> list[Any]:
        self._tell_all(wire.STOP)
        try:
            results: list[Any] = asked(ray.get, self.cast.calls, limit_s=_RESULTS_S)
        except ray.exceptions.RayError as problem:
            raise SessionError(f"an actor died at the end of the run: {first_line(problem)}") from None
        return results

    def _cut(self) -> list[Any]:
        """End the run before its end; the results, None for actors that have none."""
        self.lost = self.abort(wire.CUT)
        return [
            None if actor in self.lost else asked(ray.get, call)
            for actor, call in zip(self.cast.actors, self.cast.calls, strict=True)
        ]

    def abort(self, how: int = wire.STOP) -> list[Any]:
        """End the run early; the actors that did not come along."""
        deadline = time.monotonic() + _ABORT_S
        left = calls = self.cast.calls
        while left and time.monotonic() < deadline:
            # Again for those whose inbox is not open yet.
            self._tell_all(how)
            done, left = asked(ray.wait, calls, num_returns=len(calls), timeout=_AGAIN_S)
        lost = []
        for actor, call in zip(self.cast.actors, self.cast.calls, strict=True):
            if call not in done:
                lost.append(actor)
                continue
            try:
                asked(ray.get, call)
            except ray.exceptions.RayError:
                lost.append(actor)
        return lost

    def close(self) -> None:
        """Close the driver's inbox."""
        self.cast.mailbox.close()

    def _tell_all(self, kind: int) -> None:
        directory = self.cast.directory
        connect = self.cast.mailbox.connect_driver
        connect(directory.memory).send(self.pack((wire.DRIVER, kind)))
        for endpoint in directory.cpus:
            connect(endpoint).send(self.pack((kind,)))

    def _receive(self, timeout_ms: int) -> Any:
        inbox = self.cast.mailbox.inbox
        return wire.unpack(inbox.recv()) if inbox.poll(timeout_ms) else None

    def _await_all(
        self, numbers: set[int], count: int, patience_s: float, problem: Callable[[], SessionError]
    ) -> None:
        """Listen until `numbers` has `count` members; raise `problem()` after `patience_s` of silence."""
        heard_s = woken_s = time.monotonic()
        self.pulses = dict.fromkeys(range(-1, len(self.accesses)), heard_s)
        while len(numbers) < count and not self.broken:
            message = self._receive(_LOOK_MS)
            now = time.monotonic()
            if now - woken_s > LATE_S:
                # This process itself was stopped: what it missed is in its inbox, and nobody else is late.
                heard_s = now
                self.pulses = dict.fromkeys(self.pulses, now)
            woken_s = now
            if message is not None:
                self.pulses[message[1]] = now
                if message[0] != wire.PULSE:
                    heard_s = now
                    self._take(message)
            if now - heard_s > patience_s and (message is None or message[0] == wire.PULSE):
                self._lost(now, max(patience_s / 2, LATE_S))
                raise problem()
            if now - self.looked_s > _LOOK_MS / 1000:
                self.looked_s = now
                self._look()
                self._lost(now, LOST_S)

    def _take(self, message: Any) -> None:
        kind, number, *rest = message
        if kind == wire.READY:
            self.ready.add(number)
        elif kind == wire.PROGRESS:
            self.accesses[number] = rest[0]
        elif kind == wire.HALTED:
            self.halted.add(number)
            self.accesses[number] = rest[0]
        elif kind == wire.WAITS:
            self.waits[number] = rest[0]
        elif kind == wire.BLOCK:
            if self.keep is not None:
                self.kept += sum(rest[0][2::3])
                self.keep(*rest)
        elif kind == wire.RESTED:
            self.rested.add(number)
        elif kind == wire.BROKEN:
            self.broken.append(Violation(*rest))
        elif kind == wire.FAILED:
            raise ProgramError(rest[0], Fault(*rest[1:]))

    def _look(self) -> None:
        """Report progress, and see whether all actors are still there."""
        if self.progress is not None and self.started_ns:
            self.progress(
                {
                    "accesses": sum(self.accesses.values()),
                    "cpus": list(self.accesses.values()),
                    "halted": len(self.halted),
                    "elapsed_ns": time.monotonic_ns() - self.started_ns,
                }
            )
        calls = self.cast.calls
        done, _ = asked(ray.wait, calls, num_returns=len(calls), timeout=0)
        if not done:
            return
        # Nobody ends before the driver says so, except after a failure, of which word may be on its way.
        self._last_words(0.5)
        if self.broken:
            return
        for call in done:
            index = self.cast.calls.index(call)
            name = f"the actor of CPU {index - 1}" if index else "the memory actor"
            try:
                asked(ray.get, call)
            except ray.exceptions.RayActorError:
                raise LostActor(f"{name} died") from None
            except ray.exceptions.RayError as problem:
                raise SessionError(f"{name} failed: {first_line(problem)}") from None
            raise SessionError(f"{name} ended early")

    def _last_words(self, quiet_s: float) -> None:
        """Take what is under way until for so long nobody has anything to say."""
        until = time.monotonic() + quiet_s
        while (left := until - time.monotonic()) > 0:
            message = self._receive(int(left * 1000) + 1)
            if message is not None and message[0] != wire.PULSE:
                self._take(message)
                until = time.monotonic() + quiet_s

    def _lost(self, now: float, late_s: float) -> None:
        """LostActor if somebody has had no pulse for longer than `late_s`."""
        number, pulse_s = min(self.pulses.items(), key=lambda one: one[1])
        if self.started_ns and now - pulse_s > late_s:
            name = f"the actor of CPU {number}" if number >= 0 else "the memory actor"
            raise LostActor(
                f"{name} is lost: nothing was heard of it for {now - pulse_s:.0f} s; its host has stalled, "
                "or the way to it is cut"
            )

    def _unready(self) -> SessionError:
        missing = len(self.cast.actors) - len(self.ready)
        return SessionError(f"{missing} of {len(self.cast.actors)} actors did not start in time")

    def _stuck(self) -> SessionError:
        """Ask every CPU what it waits for."""
        pack = self.pack
        for endpoint in self.cast.directory.cpus:
            self.cast.mailbox.connect_driver(endpoint).send(pack((wire.WHERE,)))
        deadline = time.monotonic() + _WAITS_S
        while len(self.waits) < len(self.accesses) and time.monotonic() < deadline:
            message = self._receive(100)
            if message is not None:
                self._take(message)
        states = [
            f"CPU {number}: {self.waits.get(number, 'busy in its own code, does not answer')}"
            for number in sorted(self.accesses)
        ]
        return Silence(silence(self.patience_s, states))

    def _merge(self, memory: MemoryReport, reports: list[CpuReport | None], elapsed_ns: int) -> LiveResult:
        whole = [report for report in reports if report is not None]
        merged = {}
        for name in ("delivery", "handler", "round_trip"):
            merged[name] = Histogram()
            for report in whole:
                merged[name].merge(Histogram.decode(getattr(report, name)))
        at_rest = not self.broken or self.broken[0].rule == DEADLOCK
        found = [*memory.violations, *(one for report in whole for one in report.violations), *self.broken]
        return LiveResult(
            cpus=[report.results for report in whole],
            tlb_interrupts=[report.tlb_interrupts for report in whole],
            memory=memory.results,
            violations=found,
            accesses=sum(report.accesses for report in whole),
            elapsed_ns=elapsed_ns,
            tlbs=[report.tlb for report in whole] if at_rest else [],
            cut=bool(self.broken),
            core_wait=shares([*(report.core_wait for report in whole), memory.core_wait]),
            network=self.network,
            **merged,
        )
