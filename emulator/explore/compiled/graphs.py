"""A learned machine's graphs as integers, on the compiled side of one WebAssembly instance.

What that side (`graph.c`) does not know it reports; that is learnt here and handed over, as words of memory.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

from emulator.checks.violation import Violation
from emulator.explore.compiled.instance import Instance
from emulator.explore.exhaustive import ample
from emulator.explore.learned import LearnedMachine
from emulator.explore.parts import (
    NOTHING,
    UNKNOWN,
    ClockNode,
    CpuNode,
    Edge,
    Option,
    SharedNode,
    Touched,
)
from emulator.explore.persistent import PersistentSets
from emulator.hardware.cpu import Kind
from emulator.machine.progress import deadlock

MOST_CPUS: Final = 64
_MOST_OPTIONS: Final = 4096  # of one state
_MOST_MASK: Final = 2048  # words
_NOTHING: Final = 0xFFFFFFFF
# Numbers that graph.c knows.
_NODE, _SHARED, _OWN, _ANSWERED, _CLOCK, _VERDICT, _MASK, _TOUCHED, _REACHED, _CLOSED, CYCLE = range(11)
_OF_SHARED, _OF_CLOCKS, _OF_DEADLOCK = range(3)
(
    DONE,
    _LACKS_SHARED,
    LACKS_OWN,
    LACKS_ANSWERED,
    _LACKS_CLOCK,
    _LACKS_VERDICT,
    _LACKS_TOUCHED,
    BROKEN,
    LOOK,
    FULL,
) = range(10)
_DEAD, _IDLE = 1, 2
_ASKED, _OWN_ANSWER = 0xFFFFFFFE, 0xFFFFFFFD
_LACKED_WAY: Final = (LACKS_OWN, LACKS_ANSWERED, _LACKS_CLOCK)
_HEAD: Final = 6  # words of every report, before the state, what lacks, and what is told besides


class TooLarge(Exception):
    """The compiled side has no room for such a machine."""


class Graphs(Instance):
    """Those of one machine. ImportError where there is no `wasmtime`, TooLarge once there is no room."""

    def __init__(self, machine: LearnedMachine) -> None:
        self._machine = machine
        super().__init__(
            *("forget", "room", "start_at", "strategy", "begin_runs", "path_at", "report_at", "go_on"),
            *("begin_exhaustive", "exhaust_on", "open_at", "limit_memory"),
        )
        self._report_at = self._call("report_at")
        self._known: tuple[Any, ...] = ()  # which graphs, how much of them, and for which reductions
        self._sets: PersistentSets | None = None

    # --- the boundary --------------------------------------------------------------------------

    def _teach(self) -> None:
        """Hand over what is new, to be learnt with the next call."""
        count = self._hand_over(self._new)
        self._words(self._report_at, 1)[0] = count

    def _go_on(self, name: str, ahead: bool) -> tuple[int, Any]:
        """Until the compiled side stops, or wants to be looked at: why, and where the rest of its report is.

        What it lacks is learnt; with `ahead` also what it will lack next.
        """
        length = _HEAD + self._machine.cpus
        go_on = self._calls[name]
        while True:
            go_on(self._store)
            report = self._words(self._report_at, length + 2 * _MOST_OPTIONS)
            _, code, lacks, taken, shared, clocks, *nodes = report[:length]
            if not _LACKS_SHARED <= code <= _LACKS_TOUCHED:
                return code, self._report_at + 4 * length
            pairs = report[length : length + 2 * lacks]
            self._new = array("I")
            for first, second in zip(pairs[::2], pairs[1::2], strict=True):
                self._learn(code, first, second)
            if code in _LACKED_WAY:
                self._learn_ahead(self._options[taken], shared, clocks, nodes, ahead)
            self._known = (self._machine.sharing, self._machine.edges_learnt(), self._sets)
            self._teach()

    # --- the graphs ----------------------------------------------------------------------------

    def _load(self) -> None:
        """Hand over what has been learnt elsewhere since the last time."""
        machine = self._machine
        known = (machine.sharing, machine.edges_learnt(), self._sets)
        if known == self._known:
            return
        self._call("forget", machine.cpus)
        self._room = self._in = 0
        self._number_all()
        self._teach()
        self._call("go_on")
        nodes, shared, clocks = machine.start
        self._hand_over(array("I", [self._nodes[node][0] for node in nodes]))
        self._call("start_at", shared.number, clocks.number)
        self._new = array("I")
        self._known = known

    def _number_all(self) -> None:
        """Number all that is known by now, to be handed over."""
        machine = self._machine
        self._nodes: dict[CpuNode, tuple[int, int]] = {}  # number, and that of its first option
        self._node_list: list[CpuNode] = []
        self._options: list[Option] = []
        self._answers: dict[tuple[int, Any], int] = {}
        self._answer_list: list[Any] = []
        self._rules: dict[str, int] = {}
        self._masks: dict[Touched, int] = {}
        self._shared: dict[int, SharedNode] = {}
        self._clocks: dict[int, ClockNode] = {}
        new = self._new = array("I")
        for learner in machine.learners:
            for node in list(learner.nodes.values()):
                self._node(node)
        for learner in machine.learners:
            for node in learner.nodes.values():
                for option in node.options:
                    if option.alone is not None:
                        self._own(option, option.alone)
                    for answer, edge in option.successors.items():
                        self._answered(option, answer, edge)
        for shared in machine.sharing.nodes.values():
            self._shared[shared.number] = shared
            for action, found in shared.edges.items():
                self._shared_edge(shared, action, found)
            if shared.verdict is not UNKNOWN:
                new.extend((_VERDICT, shared.number, _OF_SHARED, self._rule(shared.verdict)))
        for clock in machine.watching.nodes.values():
            self._clocks[clock.number] = clock
            for event, (following, broken) in clock.edges.items():
                new.extend((_CLOCK, clock.number, event, following.number, self._rule(broken)))
            if clock.verdict is not UNKNOWN:
                new.extend((_VERDICT, clock.number, _OF_CLOCKS, self._rule(clock.verdict)))

    def _rule(self, broken: Violation | None) -> int:
        """A number for the rule, 0 if none is broken."""
        if broken is None:
            return 0
        return self._rules.setdefault(broken.rule, len(self._rules) + 1)

    def _answer(self, action: int, answer: Any) -> int:
        # Each action has its own, as 0 and False are one to a dict, but not to a program.
        number = self._answers.get((action, answer))
        if number is None:
            number = self._answers[action, answer] = len(self._answers) << 1 | (not answer)
            self._answer_list.append(answer)
        return number

    def _node(self, node: CpuNode) -> int:
        known = self._nodes.get(node)
        if known is not None:
            return known[0]
        if len(node.options) * self._machine.cpus > _MOST_OPTIONS:
            raise TooLarge
        number = len(self._nodes)
        self._nodes[node] = number, len(self._options)
        self._node_list.append(node)
        self._options += node.options
        words = self._new
        flags = _DEAD * node.dead | _IDLE * node.idle
        cpu = node.options[0].cpu if node.options else 0
        first = ample(node)
        at_first = _NOTHING if first is None else node.options.index(first)
        words.extend((_NODE, cpu, flags, at_first, len(node.options)))
        first_option = len(self._options) - len(node.options)
        for option in node.options:
            kind, _, at = option.transition
            cached = node.cached[at] if kind is Kind.WALK else None
            words.extend(
                (
                    option.action if option.action >= 0 else _NOTHING,
                    option.agent,
                    kind is Kind.WALK,
                    _NOTHING if cached is None else self._answer(option.action, cached),
                )
            )
        if self._sets is not None:
            for at, option in enumerate(node.options, first_option):
                self._touched(at, _ASKED, self._sets.dependence.asked(option))
            self._reached(node, number)
        return number

    def _mask(self, touched: Touched) -> int:
        """The number of what is touched; handed over once."""
        number = self._masks.get(touched)
        if number is None:
            number = self._masks[touched] = len(self._masks)
            length = -(-max(touched).bit_length() // 32)
            if length > _MOST_MASK:
                raise TooLarge
            self._new.extend((_MASK, length))
            for half in touched:
                self._new.frombytes(half.to_bytes(4 * length, "little"))
        return number

    def _touched(self, option: int, answer: int, touched: Touched) -> None:
        mask = self._mask(touched)
        self._new.extend((_TOUCHED, option, answer, mask))

    def _reached(self, node: CpuNode, number: int) -> None:
        assert self._sets is not None
        mask = self._mask(self._sets.reachable(node.options[0].cpu, node) if node.options else NOTHING)
        self._new.extend((_REACHED, number, mask))

    def _at(self, option: Option) -> int:
        node = option.node
        return self._nodes[node][1] + node.options.index(option)

    def _own(self, option: Option, edge: Edge) -> None:
        self._new.extend((_OWN, self._at(option), *self._edge(edge)))

    def _answered(self, option: Option, answer: Any, edge: Edge) -> None:
        number = self._answer(option.action, answer)
        self._new.extend((_ANSWERED, self._at(option), number, *self._edge(edge)))

    def _edge(self, edge: Edge) -> tuple[int, int, int]:
        event = edge.event if edge.event >= 0 else _NOTHING
        return self._node(edge.node), event, self._rule(edge.violation)

    def _shared_edge(self, node: SharedNode, action: int, edge: Any) -> None:
        if edge is None:
            self._new.extend((_SHARED, node.number, action, _NOTHING, 0, 0))
            return
        answer, following, broken = edge
        self._shared[following.number] = following
        number = self._answer(action, answer)
        self._new.extend((_SHARED, node.number, action, number, following.number, self._rule(broken)))

    def _learn(self, code: int, first: int, second: int) -> None:
        """Learn one thing that the compiled side lacks."""
        machine = self._machine
        if code == _LACKS_SHARED:
            self._edge_of_shared(self._shared[first], second)
        elif code == LACKS_OWN:
            option = self._options[first]
            self._own(option, machine.edge_of(option, None))
        elif code == LACKS_ANSWERED:
            option = self._options[first]
            answer = self._answer_list[second >> 1]
            self._answered(option, answer, machine.edge_of(option, answer))
        elif code == _LACKS_CLOCK:
            self._edge_of_clock(self._clocks[first], second)
        elif code == _LACKS_TOUCHED:
            assert self._sets is not None
            answer = None if second == _OWN_ANSWER else self._answer_list[second >> 1]
            self._touched(first, second, self._sets.dependence.done(self._options[first], answer))
        else:
            self._new.extend((_VERDICT, first, second, self._verdict(first, second)))

    def _edge_of_shared(self, node: SharedNode, action: int) -> Any:
        edge = self._machine.sharing.learn(node, action)
        self._shared_edge(node, action, edge)
        return edge

    def _edge_of_clock(self, clock: ClockNode, event: int) -> tuple[ClockNode, Violation | None]:
        following, broken = self._machine.watching.learn(clock, event)
        self._clocks[following.number] = following
        self._new.extend((_CLOCK, clock.number, event, following.number, self._rule(broken)))
        return following, broken

    def _learn_ahead(
        self, option: Option, at_shared: int, at_clocks: int, at_nodes: list[int], ahead: bool
    ) -> None:
        """What will be asked for next, as this option is being taken: the watchers' edge, and with `ahead`
        what is possible in the state that it leads to, if that is a new one for sure."""
        machine = self._machine
        shared, clocks = self._shared[at_shared], self._clocks[at_clocks]
        answer = broken = None
        if option.action >= 0:
            answer, shared, broken = shared.edges[option.action]  # type: ignore[misc]
        edge = machine.edge_of(option, answer)
        event = edge.event
        if event >= 0:
            known = clocks.edges.get(event)
            clocks, told = known or self._edge_of_clock(clocks, event)
            broken = broken or told
        if not ahead or broken or edge.violation:
            return
        for cpu, number in enumerate(at_nodes):
            node = edge.node if cpu == option.cpu else self._node_list[number]
            for one in node.options:
                if one.action >= 0 and one.action not in shared.edges:
                    self._edge_of_shared(shared, one.action)

    def _verdict(self, number: int, of: int) -> int:
        """The rule that the end breaks, as far as `of` says."""
        machine = self._machine
        if of == _OF_SHARED:
            return self._rule(machine.sharing.audit(self._shared[number]))
        if of == _OF_CLOCKS:
            return self._rule(machine.watching.audit(self._clocks[number]))
        return self._rule(machine.machine.heed.of(deadlock([])))

    def _rely_on(self, sets: PersistentSets) -> None:
        """Hand over what CPUs can reach, with the next call."""
        self._new = array("I")
        for node, (number, _) in self._nodes.items():
            self._reached(node, number)
        bits = max((changed | met for changed, met in self._masks), default=0)
        mask = self._mask(Touched(~sets.counting & (1 << bits.bit_length()) - 1))
        self._new.extend((_CLOSED, mask))
        self._teach()
