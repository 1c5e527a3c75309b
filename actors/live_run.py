"""One run as the driver sees it: it starts all actors at once, listens, and puts together what they report.

An actor that dies ends the run, unless the run tolerates that and the CPU can be unplugged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from actors import wire
from actors.calls import CpuReport
from actors.core_wait import shares
from actors.errors import Fault, LostActor, ProgramError, SessionError, Silence
from actors.gate import MemoryReport
from actors.local_ray import first_line
from actors.mailbox import Directory, Mailbox
from actors.pulse import LATE_S, LOST_S
from actors.ray_calls import asked
from emulator.checks.violation import Violation
from emulator.machine.progress import DEADLOCK, silence
from emulator.measure.histogram import Histogram

Progress = Callable[[dict[str, Any]], None]
Keep = Callable[[tuple[int, ...], int], None]

START_PATIENCE_S: Final = 120.0
"""Starting one more actor takes a second or so on a small machine, longer where many start at once."""

_LOOK_MS: Final = 250
_ABORT_S: Final = 3.0
_AGAIN_S: Final = 0.3
_RESULTS_S: Final = 60.0
_WAITS_S: Final = 2.0
_UNPLUG_S: Final = 10.0


@dataclass(slots=True, frozen=True)
class LiveResult:
    """What one run found. Times in ns; `elapsed_ns` is from the start of all CPUs to the end of the last.

    `cpus` has one kernel result for each CPU, in order, and so has `tlb_interrupts`. `delivery` is empty
    where no two CPUs share a node. A stressed run that a broken rule has ended (`cut`) lacks the results of
    CPUs that could give none, and `tlbs` unless all had come to rest. `core_wait`: by kind of latency the
    share that was waiting for a core, and under `memory` the share of the run that the memory actor was;
    empty where the system does not tell. `network`: on a cluster the address of each node
    with actors, and its round trip from the driver's. `unplugged`: CPUs that died on the way; the lists do
    without them.
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
    unplugged: tuple[int, ...] = ()


@dataclass(slots=True, frozen=True)
class Cast:
    """The actors of one run, the memory actor first, and the pending result of each."""

    mailbox: Mailbox
    directory: Directory
    actors: list[Any]
    calls: list[Any]


@dataclass(slots=True)
class Run:
    """One run as the driver sees it."""

    cast: Cast
    progress: Progress | None
    patience_s: float
    keep: Keep | None
    stressed: bool
    threads: list[int]  # of each CPU, where one may die; else empty
    unplugged: dict[int, bool] = field(default_factory=dict)  # whether the others have been told
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
    _why: str = ""
    looked_s: float = 0.0
    network: dict[str, int] = field(default_factory=dict)
    pack: Callable[[Any], bytes] = field(default_factory=wire.make_packer)

    def __post_init__(self) -> None:
        self.accesses = dict.fromkeys(range(len(self.cast.directory.cpus)), 0)

    def result(self) -> LiveResult:
        """Start, watch, end."""
        self._await_all(self.ready, len(self.cast.actors), START_PATIENCE_S, self._unready)
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
        there = self._there(self.cast.calls)
        try:
            results: list[Any] = asked(ray.get, there, limit_s=_RESULTS_S)
        except ray.exceptions.RayError as problem:
            raise SessionError(f"an actor died at the end of the run: {first_line(problem)}") from None
        return results

    def _there(self, ones: list[Any]) -> list[Any]:
        """Of actors, or their calls, those that have not been unplugged."""
        return [one for number, one in enumerate(ones, wire.MEMORY) if number not in self.unplugged]

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
        left = calls = self._there(self.cast.calls)
        while left and time.monotonic() < deadline:
            # Again for those whose inbox is not open yet.
            self._tell_all(how)
            done, left = asked(ray.wait, calls, num_returns=len(calls), timeout=_AGAIN_S)
        lost = [self.cast.actors[1 + number] for number in self.unplugged]
        for actor, call in zip(self._there(self.cast.actors), calls, strict=True):
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
        numbers_there = self._there(list(range(wire.MEMORY, len(self.accesses))))
        self.pulses = dict.fromkeys(numbers_there, heard_s)
        while len(numbers) < count and not self.broken:
            message = self._receive(_LOOK_MS)
            now = time.monotonic()
            if now - woken_s > LATE_S:
                # This process itself was stopped: what it missed is in its inbox, and nobody else is late.
                heard_s = now
                self.pulses = dict.fromkeys(self.pulses, now)
            woken_s = now
            if message is not None:
                if message[1] in self.pulses:
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
        calls = self._there(self.cast.calls)
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
                if self._unplug(index - 1):
                    return
                raise LostActor(f"{name} died{self._why}") from None
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
            if self._unplug(number):
                return
            name = f"the actor of CPU {number}" if number >= 0 else "the memory actor"
            raise LostActor(
                f"{name} is lost: nothing was heard of it for {now - pulse_s:.0f} s; its host has stalled, "
                f"or the way to it is cut{self._why}"
            )

    def _unplug(self, dead: int) -> bool:
        """Go on without this CPU, if that is wanted and can be; `_why` says why not."""
        if not self.threads or dead <= 0 or not self.started_ns:
            self._why = "; only a CPU other than 0 can be unplugged" if self.threads else ""
            return False
        actor = self.cast.actors[1 + dead]
        asked(ray.kill, actor)  # It may only have stood still.
        self.unplugged[dead] = False
        self.cast.mailbox.connect_driver(self.cast.directory.memory).send(
            self.pack((wire.DRIVER, wire.UNPLUG, dead))
        )
        until = time.monotonic() + _UNPLUG_S
        while not self.unplugged[dead] and time.monotonic() < until:
            message = self._receive(_LOOK_MS)
            if message is None or message[0] == wire.PULSE:
                continue
            if message[0] != wire.UNPLUGGED:
                self._take(message)
                continue
            can_go, through, mms = message[2:]
            if not can_go:
                break
            self.unplugged[dead] = True
            arguments = (dead, self.threads[dead] - through, *mms)
            for number, endpoint in enumerate(self.cast.directory.cpus):
                if number not in self.unplugged:
                    word = (wire.UNPLUG, dead, () if number else arguments)
                    self.cast.mailbox.connect_driver(endpoint).send(self.pack(word))
        if not self.unplugged[dead]:
            del self.unplugged[dead]
            self._why = "; it was in the kernel, where none can be unplugged"
            return False
        self.pulses.pop(dead, None)
        self.halted.add(dead)
        self.lost.append(actor)
        return True

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
            if number not in self.unplugged
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
            unplugged=tuple(sorted(self.unplugged)),
            **merged,
        )
