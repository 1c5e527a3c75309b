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
NO_NUMBER: Final = 0xFFFFFFFF
# Numbers that graph.c knows.
_NODE, _SHARED, _OWN, _ANSWERED, _CLOCK, _VERDICT, _MASK, _TOUCHED, _REACHED, _CLOSED = range(10)
CYCLE, PATH, DROP, VERDICT_OF = range(10, 14)
SWAPS, IMAGE, RANK, CELL_IMAGE, VALUE_IMAGE = range(14, 19)
OF_SHARED, OF_CLOCKS, _OF_DEADLOCK = range(3)
(
    DONE,
    LACKS_SHARED,
    LACKS_OWN,
    LACKS_ANSWERED,
    LACKS_CLOCK,
    LACKS_VERDICT,
    LACKS_TOUCHED,
    BROKEN,
    LOOK,
    FULL,
    LACKS_MANY,
) = range(11)
_DEAD, _IDLE = 1, 2
_ASKED, _OWN_ANSWER = 0xFFFFFFFE, 0xFFFFFFFD


class TooLarge(Exception):
    """The compiled side has no room for such a machine."""


class Graphs(Instance):
    """Those of one machine. ImportError where there is no `wasmtime`, TooLarge once there is no room."""

    def __init__(self, machine: LearnedMachine) -> None:
        self._machine = machine
        super().__init__(
            *("forget", "room", "start_at", "strategy", "begin_runs", "path_at", "report_at", "go_on"),
            *(
                "begin_exhaustive",
                "exhaust_on",
                "open_at",
                "limit_memory",
                "begin_learning",
                "learn_again",
                "learn_on",
            ),
            *("state_of_part", "cells_at", "met", "memory_taken", "questions_at"),
        )
        self._sets: PersistentSets | None = None

    # --- the graphs ----------------------------------------------------------------------------

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
        self._new = array("I")
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
        self._number_parts()

    def _number_parts(self) -> None:
        """The same, of what is shared and of the watchers."""
        machine, new = self._machine, self._new
        self._shared: dict[int, SharedNode] = {}
        self._clocks: dict[int, ClockNode] = {}
        for shared in machine.sharing.nodes.values():
            self._shared[shared.number] = shared
            for action, found in shared.edges.items():
                self._shared_edge(shared, action, found)
            if shared.verdict is not UNKNOWN:
                new.extend((_VERDICT, shared.number, OF_SHARED, self._rule(shared.verdict)))
        for clock in machine.watching.nodes.values():
            self._clocks[clock.number] = clock
            for event, (following, broken) in clock.edges.items():
                new.extend((_CLOCK, clock.number, event, following.number, self._rule(broken)))
            if clock.verdict is not UNKNOWN:
                new.extend((_VERDICT, clock.number, OF_CLOCKS, self._rule(clock.verdict)))

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
        at_first = NO_NUMBER if first is None else node.options.index(first)
        words.extend((_NODE, cpu, flags, at_first, len(node.options)))
        first_option = len(self._options) - len(node.options)
        for option in node.options:
            kind, _, at = option.transition
            cached = node.cached[at] if kind is Kind.WALK else None
            words.extend(
                (
                    option.action if option.action >= 0 else NO_NUMBER,
                    option.agent,
                    kind is Kind.WALK,
                    NO_NUMBER if cached is None else self._answer(option.action, cached),
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
        event = edge.event if edge.event >= 0 else NO_NUMBER
        return self._node(edge.node), event, self._rule(edge.violation)

    def _shared_edge(self, node: SharedNode, action: int, edge: Any) -> None:
        if edge is None:
            self._new.extend((_SHARED, node.number, action, NO_NUMBER, 0, 0))
            return
        answer, following, broken = edge
        self._shared[following.number] = following
        number = self._answer(action, answer)
        self._new.extend((_SHARED, node.number, action, number, following.number, self._rule(broken)))

    def _learn(self, code: int, first: int, second: int) -> None:
        """Learn one thing that the compiled side lacks."""
        machine = self._machine
        if code == LACKS_SHARED:
            self._edge_of_shared(self._shared[first], second)
        elif code == LACKS_OWN:
            option = self._options[first]
            self._own(option, machine.edge_of(option, None))
        elif code == LACKS_ANSWERED:
            option = self._options[first]
            answer = self._answer_list[second >> 1]
            self._answered(option, answer, machine.edge_of(option, answer))
        elif code == LACKS_CLOCK:
            self._edge_of_clock(self._clocks[first], second)
        elif code == LACKS_TOUCHED:
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

    def _verdict(self, number: int, of: int) -> int:
        """The rule that the end breaks, as far as `of` says."""
        if of in (OF_SHARED, OF_CLOCKS):
            return self._rule(self._judge(of, number))
        return self._rule(self._machine.machine.heed.of(deadlock([])))

    def _judge(self, part: int, number: int) -> Violation | None:
        machine = self._machine
        if part == OF_SHARED:
            return machine.sharing.audit(self._shared[number])
        return machine.watching.audit(self._clocks[number])

    def _rely_on(self, sets: PersistentSets) -> None:
        """Hand over what CPUs can reach, with the next call."""
        self._new = array("I")
        for node, (number, _) in self._nodes.items():
            self._reached(node, number)
        bits = max((changed | met for changed, met in self._masks), default=0)
        mask = self._mask(Touched(~sets.counting & (1 << bits.bit_length()) - 1))
        self._new.extend((_CLOSED, mask))
