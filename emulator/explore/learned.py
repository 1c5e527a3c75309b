"""A fast explorer: every part of the machine is learnt as a graph, once, and stepping is looking up.

Each CPU, what the CPUs share, and the checks that watch transitions are deterministic: what one does next
depends on its state and on the answer it gets. So each is run for real only the first time that it does
something in some state; from then on the pair (state, what happened) has a successor that is looked up.
A CPU cannot be copied, so to learn something new about an old state it is run again from its boot with
the answers that lead there. Two states of a CPU are one if their fingerprints agree.

The plain engine is the reference: whatever is found here is replayed there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, Protocol

from emulator.checks.accounting import Accounting
from emulator.checks.grace_period import relevant
from emulator.checks.violation import Violation
from emulator.explore.fingerprint import Unreadable, fingerprint
from emulator.hardware.cpu import Choice, Cpu, Kind, TakeCalls, Transition
from emulator.hardware.operations import Idle, Operation, describe
from emulator.machine.litmus import LitmusMachine
from emulator.machine.progress import DEADLOCK, broken_by_program, waits_with_interrupts_off
from emulator.machine.shared import Shared
from emulator.memory.memory import BLOCKED

KINDS: Final = len(Kind)
_UNKNOWN: Final = object()
_ALONE: Final = -1
_NO_EVENT: Final = -1


class NotDeterministic(Exception):
    """A program did something else the second time, with the same answers; the message says where."""


class ClockWatcher(Protocol):
    """A check that watches transitions and can be put back into an earlier state."""

    violations: list[Violation]

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """As `engine.Watcher`."""

    def finish(self) -> None:
        """The machine has come to rest and owes nothing any more: judge that."""

    def state(self) -> Hashable:
        """All that its judgements depend on."""

    def restore(self, state: Any) -> None:
        """Put back what `state` answered."""


class Edge:
    """What a CPU does with one answer: its next state, and what the watchers are told."""

    __slots__ = ("event", "node", "violation")

    def __init__(self, node: CpuNode, event: int, violation: Violation | None) -> None:
        self.node = node
        self.event = event
        self.violation = violation


class Option:
    """One transition that a CPU's state allows, if what is shared lets it.

    `agent` numbers who acts: a CPU's program, its interrupts, its window, its walker. `action` numbers
    what is asked of what is shared, -1 if nothing.
    """

    __slots__ = ("action", "agent", "alone", "cpu", "node", "operation", "successors", "transition")

    def __init__(self, node: CpuNode, choice: Choice, action: int, about: tuple[Operation | None, bool]):
        transition = choice.transition
        self.node = node
        self.transition = transition
        self.cpu = transition.cpu
        self.agent = transition.cpu * KINDS + transition.kind
        self.action = action
        self.operation = about
        self.successors: dict[Any, Edge] = {}
        self.alone: Edge | None = None


class CpuNode:
    """One state of one CPU. `label` is what led here from `parent`; `cached` what the walker has fetched."""

    __slots__ = ("cached", "idle", "key", "label", "number", "options", "parent", "waits")

    def __init__(
        self, number: int, key: Any, parent: CpuNode | None, label: tuple[Transition, Any] | None
    ) -> None:
        self.number = number
        self.key = key
        self.parent = parent
        self.label = label
        self.options: tuple[Option, ...] = ()
        self.cached: dict[int, int | None] = {}
        self.idle = False
        self.waits = ""


class SharedNode:
    """One state of what is shared. `edges`: action -> (answer, next, violation), or None if not enabled."""

    __slots__ = ("edges", "number", "state", "verdict")

    def __init__(self, number: int, state: Any) -> None:
        self.number = number
        self.state = state
        self.edges: dict[int, tuple[Any, SharedNode, Violation | None] | None] = {}
        self.verdict: Any = _UNKNOWN


class ClockNode:
    """One state of the watcher. `edges`: event -> (next, violation)."""

    __slots__ = ("edges", "number", "state", "verdict")

    def __init__(self, number: int, state: Any) -> None:
        self.number = number
        self.state = state
        self.edges: dict[int, tuple[ClockNode, Violation | None]] = {}
        self.verdict: Any = _UNKNOWN


Snapshot = tuple[tuple[CpuNode, ...], SharedNode, ClockNode]


class LearnedMachine:
    """An `Explorer` of one litmus machine, with all checks. `reached` are the counters some run has counted.

    `forget_beyond` bounds what is kept of learnt states (about 3 kB each); beyond it learning starts again.
    """

    def __init__(self, machine: LitmusMachine, forget_beyond: int = 400_000) -> None:
        self.machine = machine
        self.cpus = machine.litmus.cpus
        self.reached: set[str] = set()
        self.path: list[Transition] = []
        self.violation: Violation | None = None
        self._forget_beyond = forget_beyond
        self._forget()

    def _forget(self) -> None:
        self._events: dict[Any, int] = {}
        self._event_list: list[tuple[Transition, Operation | None, bool, Any]] = []
        self._sharing = _SharedLearner(self.machine)
        self._learners = [
            _CpuLearner(number, self.machine, self._sharing, self._event, self.reached)
            for number in range(self.cpus)
        ]
        self._watching = _ClockLearner(self.machine.watchers(), self._event_list, self.machine.litmus.drain)
        self._start: Snapshot = (
            tuple([learner.start for learner in self._learners]),
            self._sharing.start,
            self._watching.start,
        )
        self.reset()

    def _event(self, key: tuple[Transition, Operation | None, bool, Any]) -> int:
        """Number of what the watcher is told; -1 if it need not be."""
        transition, operation, issued, answer = key
        if operation is not None and not relevant(operation):
            return _NO_EVENT
        told = (transition, type(operation), operation, issued, answer)
        number = self._events.get(told)
        if number is None:
            number = self._events[told] = len(self._event_list)
            self._event_list.append(key)
        return number

    # --- as an Explorer ----------------------------------------------------------------------------

    def reset(self) -> None:
        """Back to the start."""
        if self.learnt() > self._forget_beyond:
            self._forget()
        self.resume(self._start)
        self.path = []
        self.violation = None

    def learnt(self) -> int:
        """How many states of parts are known."""
        return (
            len(self._sharing.nodes)
            + len(self._watching.nodes)
            + sum(len(one.nodes) for one in self._learners)
        )

    def snapshot(self) -> Snapshot:
        """The state of the whole machine."""
        return tuple(self._nodes), self._shared, self._clocks

    def resume(self, snapshot: Snapshot) -> None:
        """Back to a state of the whole machine; `path` and `violation` are the caller's business."""
        nodes, self._shared, self._clocks = snapshot
        self._nodes = list(nodes)

    def options(self) -> list[Option]:
        """Everything that can happen next, in a fixed order; empty at the end of a run."""
        shared = self._shared
        edges = shared.edges
        found = []
        for node in self._nodes:
            for option in node.options:
                action = option.action
                if action < 0:
                    found.append(option)
                    continue
                edge = edges.get(action, _UNKNOWN)
                if edge is _UNKNOWN:
                    edge = self._sharing.learn(shared, action)
                if edge is None:
                    continue
                transition = option.transition
                if transition.kind is Kind.WALK and (
                    not edge[0] or node.cached[transition.at] == edge[0]  # type: ignore[index]
                ):
                    continue
                found.append(option)
        return found

    def take(self, option: Option) -> None:
        """Let one of `options()` happen."""
        action = option.action
        cpu = option.cpu
        broken = None
        if action < 0:
            edge = option.alone
            if edge is None:
                edge = option.alone = self._learners[cpu].learn(option, None)
        else:
            known = self._shared.edges[action]
            assert known is not None
            answer, self._shared, broken = known
            found = option.successors.get(answer)
            if found is None:
                found = option.successors[answer] = self._learners[cpu].learn(option, answer)
            edge = found
        self._nodes[cpu] = edge.node
        event = edge.event
        if event >= 0:
            clock_edge = self._clocks.edges.get(event)
            if clock_edge is None:
                clock_edge = self._watching.learn(self._clocks, event)
            self._clocks = clock_edge[0]
            if broken is None:
                broken = clock_edge[1]
        self.path.append(option.transition)
        if broken is None:
            broken = edge.violation
        if broken is not None and self.violation is None:
            self.violation = broken

    def finish(self) -> None:
        """No option is left: judge the end."""
        if self.violation is None:
            self.violation = self.verdict()

    def verdict(self) -> Violation | None:
        """What is wrong with an end state: a deadlock, or what the audit of memory finds."""
        if not all(node.idle for node in self._nodes):
            waiting = "; ".join(
                f"CPU {number} {node.waits}" for number, node in enumerate(self._nodes) if not node.idle
            )
            return Violation(rule=DEADLOCK, cpu=-1, text=f"nothing can happen any more: {waiting}")
        return self._sharing.audit(self._shared) or self._watching.audit(self._clocks)


class _Unique:
    """A key that is equal to itself only."""


class _CpuLearner:
    """All known states of one CPU, and one real CPU that stands at one of them."""

    def __init__(
        self,
        number: int,
        machine: LitmusMachine,
        sharing: _SharedLearner,
        event: Callable[[tuple[Transition, Operation | None, bool, Any]], int],
        reached: set[str],
    ) -> None:
        self._number = number
        self._machine = machine
        self._sharing = sharing
        self._event = event
        self._reached = reached
        self.nodes: dict[Any, CpuNode] = {}
        self._dead = CpuNode(-1, None, None, None)
        self._boot()
        self.start = self._live_node = self._node(None, None)

    def _boot(self) -> None:
        self._cpu, self._kernel = self._machine.boot(self._number)

    def _node(self, parent: CpuNode | None, label: tuple[Transition, Any] | None) -> CpuNode:
        """The node of the state that the real CPU is in."""
        cpu = self._cpu
        key = self._key()
        node = self.nodes.get(key)
        if node is not None:
            return node
        node = self.nodes[key] = CpuNode(len(self.nodes), key, parent, label)
        node.options = tuple([self._option(node, cpu, choice) for choice in cpu.choices()])
        node.cached = {vpn: cpu.tlb.peek(cpu.pcid, vpn) for vpn in cpu.speculated}
        at_rest = cpu.halted or (len(cpu.frames) == 1 and type(cpu.operation) is Idle)
        node.idle = at_rest and not cpu.window.pending
        node.waits = _waits(cpu)
        return node

    def _key(self) -> Any:
        """Fingerprint of the real CPU; equal to no other if it cannot be read."""
        try:
            return fingerprint(self._cpu, self._kernel)
        except Unreadable:
            return _Unique()

    def _option(self, node: CpuNode, cpu: Cpu, choice: Choice) -> Option:
        asked = choice.operation
        action = _ALONE if asked is None else self._sharing.action(self._number, asked)
        return Option(node, choice, action, cpu.about(choice.transition))

    def learn(self, option: Option, answer: Any) -> Edge:
        """Let the real CPU take `option` with this answer from the option's state."""
        if self._live_node is not option.node:
            self._go_to(option.node)
        operation, issued = option.operation
        event = self._event((option.transition, operation, issued, answer))
        try:
            self._cpu.take(option.transition, answer)
        except Exception as error:
            self._live_node = self._dead
            broken = broken_by_program(self._number, error)
            if broken is None:
                raise
            return Edge(self._dead, event, broken)
        self._reached.update(self._kernel.vmstat)
        node = self._live_node = self._node(option.node, (option.transition, answer))
        return Edge(node, event, waits_with_interrupts_off(self._cpu))

    def _go_to(self, node: CpuNode) -> None:
        """Boot again and repeat what leads to `node`."""
        labels = []
        at: CpuNode = node
        while at.parent is not None:
            assert at.label is not None
            labels.append(at.label)
            at = at.parent
        self._boot()
        for transition, answer in reversed(labels):
            self._cpu.take(transition, answer)
        key = self._key()
        if key != node.key and not isinstance(node.key, _Unique):
            now, before = (text or "at its end" for text in (_waits(self._cpu), node.waits))
            raise NotDeterministic(
                f"CPU {self._number} of {self._machine.litmus.name} is {now} where it was {before} before: "
                "a program or policy keeps state outside its own CPU"
            )
        self._live_node = node


def _waits(cpu: Cpu) -> str:
    """What a CPU waits for, in words; empty if it has halted."""
    if cpu.halted:
        return ""
    return f"{'with interrupts off ' if not cpu.irqs else ''}at {describe(cpu.operation)}"


class _SharedLearner:
    """All known states of what is shared, and one real `Shared` that stands at one of them."""

    def __init__(self, machine: LitmusMachine) -> None:
        self._machine = machine
        self._actions: dict[Any, int] = {}
        self._action_list: list[tuple[int, Operation | TakeCalls]] = []
        memory = machine.memory()
        self._coherence = machine.coherence(memory)
        self._shared = Shared(memory, machine.litmus.cpus, (self._coherence,))
        self._parts: dict[Any, Any] = {}
        self.nodes: dict[Any, SharedNode] = {}
        self.start = self._live_node = self._node()

    def action(self, cpu: int, operation: Operation | TakeCalls) -> int:
        """Number of an operation asked by a CPU."""
        key = (cpu, type(operation), operation)
        number = self._actions.get(key)
        if number is None:
            number = self._actions[key] = len(self._action_list)
            self._action_list.append((cpu, operation))
        return number

    def _node(self) -> SharedNode:
        memory, *rest = self._shared.state()
        parts = self._parts
        state = (
            tuple([parts.setdefault(part, part) for part in memory]),
            *[parts.setdefault(part, part) for part in rest],
        )
        node = self.nodes.get(state)
        if node is None:
            node = self.nodes[state] = SharedNode(len(self.nodes), state)
        return node

    def learn(self, node: SharedNode, action: int) -> tuple[Any, SharedNode, Violation | None] | None:
        """What `action` does in the state of `node`."""
        if self._live_node is not node:
            self._shared.restore(node.state)
            self._live_node = node
        cpu, operation = self._action_list[action]
        if not self._shared.enabled(cpu, operation):
            node.edges[action] = None
            return None
        answer = self._shared.execute(cpu, operation)
        assert answer is not BLOCKED
        broken = None
        if self._coherence.violations:
            broken = self._coherence.violations[0]
            self._coherence.violations.clear()
        following = self._live_node = self._node()
        edge = node.edges[action] = (answer, following, broken)
        return edge

    def audit(self, node: SharedNode) -> Violation | None:
        """What the accounting of the end state finds; nothing if the test does not ask for it."""
        if not self._machine.litmus.drain:
            return None
        if node.verdict is _UNKNOWN:
            self._shared.restore(node.state)
            self._live_node = node
            accounting = Accounting(self._shared.memory, self._machine.make_policy())
            accounting.finish()
            node.verdict = accounting.violations[0] if accounting.violations else None
        verdict: Violation | None = node.verdict
        return verdict


class _ClockLearner:
    """All known states of the watchers, and the real ones that stand at one of them."""

    def __init__(
        self,
        watchers: Sequence[ClockWatcher],
        events: Sequence[tuple[Transition, Operation | None, bool, Any]],
        drain: bool,
    ) -> None:
        self._events = events
        self._drain = drain
        self._watchers = watchers
        self.nodes: dict[Any, ClockNode] = {}
        self.start = self._live_node = self._node()

    def _node(self) -> ClockNode:
        state = tuple([watcher.state() for watcher in self._watchers])
        node = self.nodes.get(state)
        if node is None:
            node = self.nodes[state] = ClockNode(len(self.nodes), state)
        return node

    def learn(self, node: ClockNode, event: int) -> tuple[ClockNode, Violation | None]:
        """What the watchers make of an event in the state of `node`."""
        self._go_to(node)
        for watcher in self._watchers:
            watcher.happened(*self._events[event])
        broken = self._found()
        following = self._live_node = self._node()
        edge = node.edges[event] = (following, broken)
        return edge

    def audit(self, node: ClockNode) -> Violation | None:
        """What the watchers find at the end; nothing if the test does not drain what is owed."""
        if not self._drain:
            return None
        if node.verdict is _UNKNOWN:
            self._go_to(node)
            for watcher in self._watchers:
                watcher.finish()
            node.verdict = self._found()
        verdict: Violation | None = node.verdict
        return verdict

    def _go_to(self, node: ClockNode) -> None:
        if self._live_node is not node:
            for watcher, kept in zip(self._watchers, node.state, strict=True):
                watcher.restore(kept)
            self._live_node = node

    def _found(self) -> Violation | None:
        """The first of what the watchers have just reported."""
        broken = None
        for watcher in self._watchers:
            if watcher.violations:
                broken = broken or watcher.violations[0]
                watcher.violations.clear()
        return broken
