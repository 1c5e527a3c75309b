"""A fast explorer: every part of the machine is learnt as a graph, once, and stepping is looking up.

How a part is learnt is in `parts`. Here a run is a walk through all the graphs at once. The checks and
watchers are the machine's own, whatever they are. The plain engine is the reference: whatever is found here
is replayed there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from emulator.checks.onlooker import ignored
from emulator.checks.violation import Violation
from emulator.explore.dependence import Dependence
from emulator.explore.explorer import nearest
from emulator.explore.parts import (
    UNKNOWN,
    ClockLearner,
    ClockNode,
    CpuLearner,
    CpuNode,
    Edge,
    Event,
    Option,
    SharedLearner,
    SharedNode,
)
from emulator.explore.scripts import Programs
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.builder import Machine
from emulator.machine.progress import deadlock

_NO_EVENT = -1

Snapshot = tuple[tuple[CpuNode, ...], SharedNode, ClockNode]


_DIGIT: Final = 32


def state_key(snapshot: Snapshot) -> int:
    """A number that two snapshots of one machine share only if they are the same state: nothing is hashed.

    Its digits are the numbers of the nodes, below 2**32 as no memory holds more of them; that of a program
    which has raised is -1.
    """
    nodes, shared, clocks = snapshot
    key = shared.number << _DIGIT | clocks.number
    for node in nodes:
        key = key << _DIGIT | node.number + 1
    return key


class LearnedMachine:
    """An `Explorer` of one machine, with all its checks. `reached` are the counters some run has counted.

    `forget_beyond` bounds what is kept of learnt states (about 3 kB each); beyond it learning starts again.
    `programs`: what is known of what its programs do, by other machines; they stay the caller's.
    """

    def __init__(
        self, machine: Machine, forget_beyond: int = 400_000, programs: Programs | None = None
    ) -> None:
        self.machine = machine
        self.cpus = machine.cpus
        self.reached: set[str] = set()
        self.path: list[Transition] = []
        self.violation: Violation | None = None
        self.walker: Any = None  # the compiled side, once there is one
        self.symmetry: Any = None  # and what is known of swapping CPUs (`symmetry`): pairs of them, names
        self.twins: list[tuple[int, int, dict[str, str]]] | None = None
        self._forget_beyond = forget_beyond
        self._programs = programs or Programs(machine)
        self._lent = programs is not None
        self._forget()

    def _forget(self) -> None:
        self._events: dict[Any, int] = {}
        self._event_list: list[Event] = []
        self.log: list[tuple[Option, Any, Edge]] = []  # edges of CPUs, as they were learnt
        self.sharing = SharedLearner(self.machine)
        self.learners = [
            CpuLearner(number, self.machine, self.sharing, self._event, self.reached, programs)
            for number, programs in enumerate(self._programs.graphs)
        ]
        watchers = self.machine.watchers()
        self._ignored = ignored(watchers)
        order = self.machine.parameters.hpage_order
        self.dependence = Dependence(self.sharing.checks, watchers, order)
        self.watching = ClockLearner(watchers, self._event_list, self.machine.drains)
        self.start: Snapshot = (
            tuple([learner.start for learner in self.learners]),
            self.sharing.start,
            self.watching.start,
        )
        self.reset()

    def relearn(self, reached: set[str]) -> None:
        """Forget all that has been learnt. These counters have been reached."""
        self.reached.intersection_update(reached)
        self._forget()

    def close(self) -> None:
        """Give back what has been learnt: states refer to each other, and there are very many of them."""
        for learner in self.learners:
            learner.forget()
        self.sharing.forget()
        self.watching.forget()
        if not self._lent:
            self._programs.forget()
        self.log.clear()
        self.walker = self.symmetry = None

    def _event(self, key: Event) -> int:
        """Number of what the watchers are told; -1 if they need not be."""
        transition, operation, issued, answer = key
        if type(operation) in self._ignored:
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
        self.settle()
        if self.learnt() > self._forget_beyond:
            self._programs.forget()
            self._forget()
        self.restart()

    def restart(self) -> None:
        """Back to the start, with all that has been learnt."""
        self.resume(self.start)
        self.path = []
        self.violation = None

    def learnt(self) -> int:
        """How many states of parts are known."""
        return (
            len(self.sharing.nodes) + len(self.watching.nodes) + sum(len(one.nodes) for one in self.learners)
        )

    def edges_learnt(self) -> int:
        """How much is known of what leads from state to state."""
        footprints = self.sharing.footprints.learnt + self.watching.footprints.learnt
        return footprints + sum(one.edges_learnt for one in self.learners)

    def edge_of(self, option: Option, answer: Any) -> Edge:
        """Where an option leads with this answer, None if nothing is asked; learnt if it has to be."""
        edge = option.alone if option.action < 0 else option.successors.get(answer)
        if edge is None:
            edge = self.learners[option.cpu].learn(option, answer)
            self.log.append((option, answer, edge))
            if option.action < 0:
                option.alone = edge
            else:
                option.successors[answer] = edge
        return edge

    def nodes_of(self, cpu: int) -> list[CpuNode]:
        """All known states of a CPU, by number."""
        return self.learners[cpu].by_number

    def states(self) -> Callable[[int], Snapshot]:
        """A function that answers the state of this key, of those there are now."""
        shared = list(self.sharing.nodes.values())
        clocks = list(self.watching.nodes.values())
        learners = self.learners
        digits = range((len(learners) - 1) * _DIGIT, -1, -_DIGIT)
        mask = (1 << _DIGIT) - 1

        def state(key: int) -> Snapshot:
            numbers = zip(learners, [(key >> digit & mask) - 1 for digit in digits], strict=True)
            nodes = tuple([one.by_number[at] if at >= 0 else one.dead for one, at in numbers])
            rest = key >> len(learners) * _DIGIT
            return nodes, shared[rest >> _DIGIT], clocks[rest & mask]

        return state

    def settle(self) -> None:
        """Nothing more is asked for now. Raises SharedState if programs have changed what they share."""
        self._programs.surroundings.check_all()

    def snapshot(self) -> Snapshot:
        """The state of the whole machine."""
        return tuple(self._nodes), self._shared, self._clocks

    def resume(self, snapshot: Snapshot) -> None:
        """Back to a state of the whole machine; `path` and `violation` are the caller's business."""
        nodes, self._shared, self._clocks = snapshot
        self._nodes = list(nodes)

    def options(self, cpu: int = -1) -> list[Option]:
        """Everything that can happen next, in a fixed order; empty at the end of a run."""
        shared = self._shared
        if cpu >= 0:
            return self._offered(self._nodes[cpu], shared)
        offers = shared.offers
        found: list[Option] = []
        for node in self._nodes:
            offered = offers.get(node)
            if offered is None:
                offered = offers[node] = self._offered(node, shared)
            found += offered
        return found

    def _offered(self, node: CpuNode, shared: SharedNode) -> list[Option]:
        """What can happen next of a CPU that is in this state, beside that state of what is shared."""
        edges = shared.edges
        found = []
        for option in node.options:
            action = option.action
            if action < 0:
                found.append(option)
                continue
            edge = edges.get(action, UNKNOWN)
            if edge is UNKNOWN:
                edge = self.sharing.learn(shared, action)
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
            edge = option.alone or self.edge_of(option, None)
        else:
            known = self._shared.edges.get(action) or self.sharing.learn(self._shared, action)
            assert known is not None
            answer, self._shared, broken = known
            edge = option.successors.get(answer) or self.edge_of(option, answer)
        self._nodes[cpu] = edge.node
        event = edge.event
        if event >= 0:
            clock_edge = self._clocks.edges.get(event)
            if clock_edge is None:
                clock_edge = self.watching.learn(self._clocks, event)
            self._clocks = clock_edge[0]
            if broken is None:
                broken = clock_edge[1]
        self.path.append(option.transition)
        if broken is None:
            broken = edge.violation
        if broken is not None and self.violation is None:
            self.violation = broken

    def attempt(self, transition: Transition) -> Transition | None:
        """Let the option happen that a transition of an altered schedule has become."""
        option: Any = nearest(self.options(transition.cpu), transition)
        if option is None:
            return None
        self.take(option)
        return self.path[-1]

    def finish(self) -> None:
        """No option is left: judge the end."""
        if self.violation is None:
            self.violation = self.verdict()

    def verdict(self) -> Violation | None:
        """What is wrong with an end state: a deadlock, or what the checks find."""
        self.settle()
        if any(node.dead for node in self._nodes):
            # Its program has broken a rule that does not count. What it leaves behind says nothing.
            return None
        if not all(node.idle for node in self._nodes):
            waiting = [f"CPU {at} {node.waits}" for at, node in enumerate(self._nodes) if node.waits]
            return self.machine.heed.of(deadlock(waiting))
        return self.sharing.audit(self._shared) or self.watching.audit(self._clocks)
