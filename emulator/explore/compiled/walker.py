"""A learned machine's graphs as integers, and runs of a strategy over them in compiled code.

The compiled side (`search.c`) looks up and chooses. What it does not know it reports; that is learnt here,
handed over, and the run goes on where it was.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha512
from importlib.resources import files
from typing import Any, Final, NamedTuple

from emulator.explore.learned import LearnedMachine
from emulator.explore.parts import UNKNOWN, ClockNode, CpuNode, Edge, Option, SharedNode
from emulator.explore.search import ASK_EVERY, Limits, Tally
from emulator.explore.strategies import delay_bounded, pct, random_walk, uniform
from emulator.explore.strategies.portfolio import Portfolio
from emulator.explore.strategies.strategy import KINDS, WALKER, Strategy
from emulator.hardware.cpu import Kind
from emulator.machine.progress import deadlock

_NOTHING: Final = 0xFFFFFFFF
_MOST_CPUS: Final = 64
_MOST_OPTIONS: Final = 4096
# Numbers that graph.c and strategies.c know.
_NODE, _SHARED, _OWN, _ANSWERED, _CLOCK, _VERDICT = range(6)
_OF_SHARED, _OF_CLOCKS, _OF_DEADLOCK = range(3)
(
    _DONE,
    _LACKS_SHARED,
    _LACKS_OWN,
    _LACKS_ANSWERED,
    _LACKS_CLOCK,
    _LACKS_VERDICT,
    _BROKEN,
) = range(7)
_RANDOM, _PCT, _UNIFORM, _DELAY = range(4)
_DEAD, _IDLE = 1, 2
_REPORT: Final = 7  # words of a report before what lacks

_Member = tuple[int, int, int]


class _Report(NamedTuple):
    runs: int
    cut: int
    steps: int
    leader: int
    path: int


@cache
def _module() -> Any:
    # Imported where it is needed: a short search is over before that.
    import wasmtime

    engine = wasmtime.Engine()
    code = files(__package__).joinpath("walker.wasm").read_bytes()
    return wasmtime, engine, wasmtime.Module(engine, code)


def walks(machine: LearnedMachine, strategy: Strategy) -> bool:
    """Whether a Walker can do this: a strategy of ours, and not more CPUs than there is room for."""
    return machine.cpus <= _MOST_CPUS and _members(strategy) is not None


def _members(strategy: Strategy) -> tuple[_Member, ...] | None:
    """Kind and numbers of a fresh strategy, of each member of a portfolio; None if it is somebody's own."""
    kind = type(strategy)
    if kind is Portfolio:
        found = [_members(member) for member in strategy.members]  # type: ignore[attr-defined]
        return None if None in found else tuple([one[0] for one in found if one])
    if kind is pct.Pct:
        points = strategy.depth - 1  # type: ignore[attr-defined]
        # random.sample draws from a list up to this size of its population, else into a set.
        small = 21 + (4 ** math.ceil(math.log(points * 3, 4)) if points > 5 else 0)
        return ((_PCT, points + 1, small),)
    if kind is delay_bounded.DelayBounded:
        return ((_DELAY, strategy.bound, 0),)  # type: ignore[attr-defined]
    if kind is uniform.Uniform:
        return ((_UNIFORM, 0, 0),)
    return ((_RANDOM, 0, 0),) if kind is random_walk.RandomWalk else None


class Walker:
    """The compiled side of one learned machine. ImportError where there is no `wasmtime`."""

    def __init__(self, machine: LearnedMachine) -> None:
        self._machine = machine
        wasmtime, engine, module = _module()
        self._store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        self._memory: Any = exports["memory"]
        self._calls = {name: exports[name] for name in ("forget", "room", "learn", "start_at", "strategy")}
        self._calls |= {name: exports[name] for name in ("begin_runs", "path_at", "report_at", "go_on")}
        self._report_at = self._call("report_at")
        self._room = self._in = 0
        self._known: tuple[Any, int] = (None, -1)  # which graphs, and how much of them

    # --- the boundary --------------------------------------------------------------------------

    def _call(self, name: str, *numbers: float) -> int:
        answer: int = self._calls[name](self._store, *numbers)
        return answer

    def _words(self, at: int, count: int) -> Any:
        """Words of the compiled side's memory, until its next call."""
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        return (ctypes.c_uint32 * count).from_address(base + at)

    def _hand_over(self, words: array[int]) -> int:
        """Put words where the compiled side reads them; their number."""
        count = len(words)
        if count > self._room:
            self._room = max(1 << 14, 2 * count)
            self._in = self._call("room", self._room)
        if count:
            ctypes.memmove(self._words(self._in, count), words.buffer_info()[0], 4 * count)
        return count

    # --- the graphs ----------------------------------------------------------------------------

    def _load(self) -> None:
        """Hand over what has been learnt elsewhere since the last time."""
        machine = self._machine
        known = (machine.sharing, machine.edges_learnt())
        if known == self._known:
            return
        self._call("forget", machine.cpus)
        self._room = self._in = 0
        self._nodes: dict[CpuNode, tuple[int, int]] = {}  # number, and that of its first option
        self._options: list[Option] = []
        self._answers: dict[tuple[int, Any], int] = {}
        self._answer_list: list[Any] = []
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
                new.extend((_VERDICT, shared.number, _OF_SHARED, shared.verdict is not None))
        for clock in machine.watching.nodes.values():
            self._clocks[clock.number] = clock
            for event, (following, broken) in clock.edges.items():
                new.extend((_CLOCK, clock.number, event, following.number, broken is not None))
            if clock.verdict is not UNKNOWN:
                new.extend((_VERDICT, clock.number, _OF_CLOCKS, clock.verdict is not None))
        self._call("learn", self._hand_over(new))
        nodes, shared, clocks = machine.start
        self._hand_over(array("I", [self._nodes[node][0] for node in nodes]))
        self._call("start_at", shared.number, clocks.number)
        self._new = array("I")
        self._known = known

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
        number = len(self._nodes)
        self._nodes[node] = number, len(self._options)
        self._options += node.options
        words = self._new
        flags = _DEAD * node.dead | _IDLE * node.idle
        cpu = node.options[0].cpu if node.options else 0
        words.extend((_NODE, cpu, flags, len(node.options)))
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
        return number

    def _at(self, option: Option) -> int:
        node = option.node
        return self._nodes[node][1] + node.options.index(option)

    def _own(self, option: Option, edge: Edge) -> None:
        self._new.extend((_OWN, self._at(option), *self._edge(edge)))

    def _answered(self, option: Option, answer: Any, edge: Edge) -> None:
        number = self._answer(option.action, answer)
        self._new.extend((_ANSWERED, self._at(option), number, *self._edge(edge)))

    def _edge(self, edge: Edge) -> tuple[int, int, bool]:
        event = edge.event if edge.event >= 0 else _NOTHING
        return self._node(edge.node), event, edge.violation is not None

    def _shared_edge(self, node: SharedNode, action: int, edge: Any) -> None:
        if edge is None:
            self._new.extend((_SHARED, node.number, action, _NOTHING, 0, 0))
            return
        answer, following, broken = edge
        self._shared[following.number] = following
        number = self._answer(action, answer)
        self._new.extend((_SHARED, node.number, action, number, following.number, broken is not None))

    def _learn(self, code: int, lacking: Sequence[tuple[int, int]]) -> None:
        """Learn what the compiled side lacks."""
        machine = self._machine
        self._new = array("I")
        for first, second in lacking:
            if code == _LACKS_SHARED:
                node = self._shared[first]
                edge = node.edges.get(second, UNKNOWN)
                self._shared_edge(
                    node, second, machine.sharing.learn(node, second) if edge is UNKNOWN else edge
                )
            elif code == _LACKS_OWN:
                option = self._options[first]
                self._own(option, machine.edge_of(option, None))
            elif code == _LACKS_ANSWERED:
                option = self._options[first]
                answer = self._answer_list[second >> 1]
                self._answered(option, answer, machine.edge_of(option, answer))
            elif code == _LACKS_CLOCK:
                clock = self._clocks[first]
                following, broken = clock.edges.get(second) or machine.watching.learn(clock, second)
                self._clocks[following.number] = following
                self._new.extend((_CLOCK, first, second, following.number, broken is not None))
            else:
                self._new.extend((_VERDICT, first, second, self._verdict(first, second)))
        self._known = (machine.sharing, machine.edges_learnt())

    def _verdict(self, number: int, of: int) -> bool:
        """Whether the end is broken, as far as `of` says."""
        machine = self._machine
        if of == _OF_SHARED:
            return machine.sharing.audit(self._shared[number]) is not None
        if of == _OF_CLOCKS:
            return machine.watching.audit(self._clocks[number]) is not None
        return machine.machine.heed.of(deadlock([])) is not None

    # --- runs ----------------------------------------------------------------------------------

    def search(
        self, strategy: Strategy, seed: int, limits: Limits, stop: Callable[[], bool], first_run: int
    ) -> Tally:
        """As `search.search` with a fresh strategy that `walks`."""
        machine = self._machine
        self._begin(strategy)
        tally = Tally(strategy=strategy.name)
        last = first_run + limits.schedules
        for first in range(first_run, last, ASK_EVERY):
            if stop():
                break
            machine.reset()
            self._load()
            runs = range(first, min(first + ASK_EVERY, last))
            words = self._hand_over(_seeds(seed, runs))
            self._call("begin_runs", len(runs), words, limits.steps)
            code, report = self._go_on()
            tally.schedules += report.runs
            tally.steps += report.steps
            tally.cut += report.cut
            if code == _BROKEN:
                self._repeat(report.path)
                tally.violation = machine.violation
                tally.schedule = tuple(machine.path)
                tally.run = first + report.runs - 1
                if type(strategy) is Portfolio:
                    tally.strategy = f"{strategy.name}/{strategy.members[report.leader].name}"
                break
            machine.settle()
        return tally

    def _begin(self, strategy: Strategy) -> None:
        members = _members(strategy)
        assert members is not None
        self._load()
        numbers = [KINDS, WALKER, pct.FIRST_GUESS, *[number for member in members for number in member]]
        self._hand_over(array("I", numbers))
        shares = random_walk.WALK_ACCEPTED, uniform.LEAST_WALKER
        self._call("strategy", len(members), type(strategy) is Portfolio, *shares)

    def _go_on(self) -> tuple[int, _Report]:
        """Runs until they are done or a rule breaks; what ended them."""
        words = 0
        while True:
            code = self._call("go_on", words)
            runs, cut, low, high, leader, path, lacks = self._words(self._report_at, _REPORT)
            if code in (_DONE, _BROKEN):
                return code, _Report(runs, cut, low | high << 32, leader, path)
            pairs = self._words(self._report_at + 4 * _REPORT, 2 * lacks)
            self._learn(code, list(zip(pairs[::2], pairs[1::2], strict=True)))
            words = self._hand_over(self._new)

    def _repeat(self, length: int) -> None:
        """Take the path of the run that broke a rule, so that the machine stands where it ended."""
        machine = self._machine
        machine.resume(machine.start)
        machine.path = []
        machine.violation = None
        for number in list(self._words(self._call("path_at"), length)):
            machine.take(self._options[number])
        if machine.violation is None:
            machine.finish()


def _seeds(seed: int, runs: range) -> array[int]:
    """What random.Random(f"{seed}/{run}") begins with, of each run: how many words, and these."""
    found = array("I")
    for run in runs:
        text = f"{seed}/{run}".encode()
        number = int.from_bytes(text + sha512(text).digest())
        words = -(-number.bit_length() // 32)
        found.append(words)
        found.frombytes(number.to_bytes(4 * words, "little"))
    return found
