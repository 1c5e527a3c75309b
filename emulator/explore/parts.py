"""The parts of a machine as graphs that are learnt: each CPU, what the CPUs share, and the watchers.

A part is deterministic: what it does next depends on its state and on the answer it gets. So it is run for
real only the first time that it does something in some state; from then on the pair (state, what happened)
has a successor that is looked up. To learn something new about an old state of a CPU, one CPU is put back
there; what its programs do is looked up as well (`scripts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from emulator.checks.onlooker import Check, Watcher
from emulator.checks.violation import Violation
from emulator.explore.fingerprint import keep_apart, plain
from emulator.explore.footprints import Footprints, State, after
from emulator.explore.scripts import ProgramGraph, ProgramState
from emulator.explore.watched_parts import watch_shared, watch_watchers
from emulator.hardware.cpu import Choice, Cpu, TakeCalls, Transition
from emulator.hardware.cpu_state import CpuState, restore, state_of
from emulator.hardware.operations import Operation
from emulator.machine.builder import Machine
from emulator.machine.progress import at_end, broken_by_program, standing, waits_with_interrupts_off
from emulator.machine.referee import agent_of
from emulator.machine.shared import Shared
from emulator.memory.blocked import BLOCKED

UNKNOWN: Final = object()
_ALONE: Final = -1
_NO_EVENT: Final = -1


Event = tuple[Transition, Operation | None, bool, Any]
"""What watchers are told."""


class Touched(NamedTuple):
    """`changed`: what it may change. `met`: what it must not have changed under it."""

    changed: int = 0
    met: int = 0

    def meets(self, other: Touched) -> int:
        """Not 0 if their order can be told."""
        return self.changed & other.met | other.changed & self.met

    def and_also(self, other: Touched) -> Touched:
        """Both together."""
        return Touched(self.changed | other.changed, self.met | other.met)


NOTHING = Touched()


@dataclass(slots=True, eq=False)
class Edge:
    """What a CPU does with one answer: its next state, and what the watchers are told."""

    node: CpuNode
    event: int
    violation: Violation | None


@dataclass(slots=True, eq=False)
class Option:
    """One transition that a CPU's state allows, if what is shared lets it.

    `agent` numbers who acts: a CPU's program, its interrupts, its window, its walker. `action` numbers
    what is asked of what is shared, -1 if nothing. `asked` and, by answer, `touched` are `dependence`'s.
    """

    node: CpuNode
    transition: Transition
    cpu: int
    agent: int
    action: int
    operation: tuple[Operation | None, bool]  # and whether it only goes into the window
    successors: dict[Any, Edge] = field(default_factory=dict)
    alone: Edge | None = None
    asked: Touched | None = None
    touched: dict[Any, Touched] = field(default_factory=dict)

    def edges(self) -> list[tuple[Any, Edge]]:
        """What is known of it: answers, and what follows."""
        return [(None, self.alone)] if self.alone is not None else list(self.successors.items())


@dataclass(slots=True, eq=False)
class CpuNode:
    """One state of one CPU: `state`, and where its programs are. `cached`: what the walker has fetched."""

    number: int
    state: tuple[CpuState, ProgramState] | None
    dead: bool = False  # its program has raised
    idle: bool = False
    waits: str = ""
    options: tuple[Option, ...] = ()
    cached: dict[int, int | None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class SharedNode:
    """One state of what is shared. `edges`: action -> (answer, next, violation), or None if not enabled;
    `offers`: what a CPU can do here, by its state."""

    number: int
    state: State
    edges: dict[int, tuple[Any, SharedNode, Violation | None] | None] = field(default_factory=dict)
    offers: dict[CpuNode, list[Option]] = field(default_factory=dict)
    verdict: Any = UNKNOWN


@dataclass(slots=True, eq=False)
class ClockNode:
    """One state of the watcher. `edges`: event -> (next, violation)."""

    number: int
    state: State
    edges: dict[int, tuple[ClockNode, Violation | None]] = field(default_factory=dict)
    verdict: Any = UNKNOWN


class CpuLearner:
    """All known states of one CPU, whose programs do what they did before (`scripts`)."""

    def __init__(
        self,
        number: int,
        machine: Machine,
        sharing: SharedLearner,
        event: Callable[[Event], int],
        reached: set[str],
        programs: ProgramGraph,
    ) -> None:
        self._number = number
        self._sharing = sharing
        self._event = event
        self._reached = reached
        self._programs = programs
        self.nodes: dict[Any, CpuNode] = {}
        self.edges_learnt = 0
        self.by_number: list[CpuNode] = []
        self._heed = machine.heed
        self.dead = CpuNode(-1, None, dead=True)
        self._cpu, self._script = programs.begin(machine)
        self.start = self._node()

    def _node(self) -> CpuNode:
        """The node of the state that the CPU is in."""
        cpu, script = self._cpu, self._script
        state = state_of(cpu)
        frames = [
            (
                irqs,
                plain(operation),
                series and tuple([plain(member) for member in series]),
                tuple([self._programs.exact(answer) for answer in answers]),
                begun,
                interrupted,
            )
            for irqs, operation, series, answers, begun, interrupted in state.frames
        ]
        pending = [plain(effect) for effect in state.pending]
        key = (script.at.number, *state[:4], tuple(pending), state.values, tuple(frames))
        node = self.nodes.get(key)
        if node is not None:
            return node
        node = self.nodes[key] = CpuNode(len(self.nodes), (state, script.at))
        self.by_number.append(node)
        node.options = tuple([self._option(node, cpu, choice) for choice in cpu.choices()])
        node.cached = {vpn: cpu.fetched(vpn) for vpn in cpu.speculated}
        node.idle = at_end(cpu) and not cpu.window.pending
        node.waits = standing(cpu)
        return node

    def _option(self, node: CpuNode, cpu: Cpu, choice: Choice) -> Option:
        asked = choice.operation
        action = _ALONE if asked is None else self._sharing.action(self._number, asked)
        transition = choice.transition
        about = cpu.about(transition)
        return Option(node, transition, self._number, agent_of(transition), action, about)

    def forget(self) -> None:
        """Take apart what refers to each other, so that nobody has to search for it (`gc`)."""
        for node in self.by_number:
            for option in node.options:
                option.successors.clear()
                option.alone = None
            node.options = ()
        self.by_number.clear()
        self.nodes.clear()

    def learn(self, option: Option, answer: Any) -> Edge:
        """Let the CPU take `option` with this answer from the option's state."""
        self.edges_learnt += 1
        cpu, script = self._cpu, self._script
        assert option.node.state is not None
        state, script.at = option.node.state
        restore(cpu, state, script)
        operation, issued = option.operation
        event = self._event((option.transition, operation, issued, answer))
        try:
            cpu.take(option.transition, answer)
        except Exception as error:
            broken = broken_by_program(self._number, error)
            if broken is None:
                raise
            error.__traceback__ = None
            script.counted = ()
            return Edge(self.dead, event, self._heed.of(broken))
        finally:
            self._programs.drop()
        self._reached.update(script.counted)
        script.counted = ()
        return Edge(self._node(), event, self._heed.of(waits_with_interrupts_off(cpu)))


class SharedLearner:
    """All known states of what is shared, and one real `Shared` that actions are carried out on."""

    def __init__(self, machine: Machine) -> None:
        self._actions: dict[Any, int] = {}
        self._shapes: dict[Any, Any] = {}
        self._action_list: list[tuple[int, Operation | TakeCalls]] = []
        memory = machine.memory()
        self.checks: Sequence[Check] = machine.checks(memory)
        self._shared = Shared(memory, machine.cpus, self.checks)
        cells, self._begin = watch_shared(self._shared)
        self.footprints = Footprints(cells, self._act)
        self.nodes: dict[State, SharedNode] = {}
        self.start = self.node(cells.state())

    def action(self, cpu: int, operation: Operation | TakeCalls) -> int:
        """Number of an operation asked by a CPU."""
        key = (cpu, plain(operation))
        number = self._actions.get(key)
        if number is None:
            keep_apart(operation, self._shapes)
            number = self._actions[key] = len(self._action_list)
            self._action_list.append((cpu, operation))
        return number

    def asked(self, action: int) -> tuple[int, Operation | TakeCalls]:
        """The CPU and the operation that are an action."""
        return self._action_list[action]

    def node(self, state: State) -> SharedNode:
        """The node of this state."""
        node = self.nodes.get(state)
        if node is None:
            node = self.nodes[state] = SharedNode(len(self.nodes), state)
        return node

    def _act(self, action: int) -> tuple[Any, Violation | None] | None:
        """Carry out an action, if it is enabled."""
        self._begin()
        cpu, operation = self._action_list[action]
        if not self._shared.enabled(cpu, operation):
            return None
        answer = self._shared.execute(cpu, operation)
        assert answer is not BLOCKED
        return answer, _found(self.checks)

    def learn(self, node: SharedNode, action: int) -> tuple[Any, SharedNode, Violation | None] | None:
        """What `action` does in the state of `node`."""
        outcome, changes = self.footprints.leaf(node.state, action)
        if outcome is None:
            node.edges[action] = None
            return None
        edge = node.edges[action] = (outcome[0], self.node(after(node.state, changes)), outcome[1])
        return edge

    def forget(self) -> None:
        """As of a CpuLearner."""
        for node in self.nodes.values():
            node.edges.clear()
            node.offers.clear()
        self.nodes.clear()
        self.footprints.forget()

    def audit(self, node: SharedNode) -> Violation | None:
        """What the checks find at the end."""
        if node.verdict is UNKNOWN:
            node.verdict = self.audited(node.state)
        verdict: Violation | None = node.verdict
        return verdict

    def audited(self, state: State) -> Violation | None:
        """As `audit`, of any state."""
        self.footprints.cells.load(state)
        self._begin()
        for check in self.checks:
            check.finish()
        self.footprints.outdate()
        return _found(self.checks)

    def plainly(self, state: State) -> tuple[Any, ...]:
        """The state as `Shared.state` has it."""
        self.footprints.cells.load(state)
        self._begin()
        return self._shared.state()


class ClockLearner:
    """All known states of the watchers, and the real ones that events are told."""

    def __init__(self, watchers: Sequence[Watcher], events: Sequence[Event], drains: bool) -> None:
        self.events = events
        self._drains = drains
        self._watchers = watchers
        cells, self._begin, self._settle = watch_watchers(watchers)
        self.footprints = Footprints(cells, self._tell)
        self.nodes: dict[State, ClockNode] = {}
        self.start = self.node(cells.state())

    def node(self, state: State) -> ClockNode:
        """The node of this state."""
        node = self.nodes.get(state)
        if node is None:
            node = self.nodes[state] = ClockNode(len(self.nodes), state)
        return node

    def _tell(self, event: int) -> tuple[Violation | None]:
        self._begin()
        for watcher in self._watchers:
            watcher.happened(*self.events[event])
        self._settle()
        return (_found(self._watchers),)

    def learn(self, node: ClockNode, event: int) -> tuple[ClockNode, Violation | None]:
        """What the watchers make of an event in the state of `node`."""
        outcome, changes = self.footprints.leaf(node.state, event)
        edge = node.edges[event] = (self.node(after(node.state, changes)), outcome[0])
        return edge

    def forget(self) -> None:
        """As of a CpuLearner."""
        for node in self.nodes.values():
            node.edges.clear()
        self.nodes.clear()
        self.footprints.forget()

    def audit(self, node: ClockNode) -> Violation | None:
        """What the watchers find at the end; nothing if the machine does not perform what it owes."""
        if not self._drains:
            return None
        if node.verdict is UNKNOWN:
            node.verdict = self.audited(node.state)
        verdict: Violation | None = node.verdict
        return verdict

    def audited(self, state: State) -> Violation | None:
        """As `audit`, of any state of a machine that performs what it owes."""
        self.footprints.cells.load(state)
        self._begin()
        for watcher in self._watchers:
            watcher.finish()
        self.footprints.outdate()
        return _found(self._watchers)

    def plainly(self, state: State) -> tuple[Any, ...]:
        """The state as the watchers have it."""
        self.footprints.cells.load(state)
        self._begin()
        return tuple([watcher.state() for watcher in self._watchers])


def _found(checks: Sequence[Check] | Sequence[Watcher]) -> Violation | None:
    """The first of what they have just reported."""
    broken = None
    for check in checks:
        if check.violations:
            broken = broken or check.violations[0]
            check.violations.clear()
    return broken
