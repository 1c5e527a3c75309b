"""A test's final states on one architecture, every interleaving followed, and its verdict beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final, NamedTuple

from emulator.checks.onlooker import APART, Check, Meeting
from emulator.explore.exhaustive import AMPLE, PERSISTENT, REDUCTIONS, exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.instructions import Operand, without_tag, word_at
from emulator.hardware.operations import Operation
from emulator.hardware.ordering import ARCHITECTURES, Architecture
from emulator.hardware.tlb import TlbShape
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.builder import Machine, parameters_of
from emulator.memory.folios import Tier
from emulator.memory.held_entries import MemoryAndEntries
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from scenarios.conformance import linux_c, riscv, translations
from scenarios.conformance.code import (
    MOST_LINES,
    MOST_WAYS,
    Access,
    NotTranslatable,
    Pages,
    Thread,
    Way,
    folded,
    in_order,
    late,
    trimmed,
    ways,
)
from scenarios.conformance.herd_text import HerdTest, Place, State, printed
from scenarios.conformance.suites import TOO_DEEP, Entry, herd_state

_SHAPE: Final = TlbShape(4, 4, 4, 4)
_TIERS: Final = (Tier(1, Watermarks(0, 0, 0)), Tier(1, Watermarks(0, 0, 0)))
MOST_STATES: Final = 400_000

Boot = Callable[[int], Program]
"""What a CPU of this number boots."""


class _FinalStates(Check):
    """Keeps what words hold at the end of runs."""

    def __init__(self, memory: Memory, names: Mapping[Place, str], found: set[tuple[int, ...]]) -> None:
        super().__init__()
        self._memory = memory
        self._names = tuple(names.values())
        self._found = found

    def meets(self, cpu: int, operation: Operation, answer: Any) -> Meeting:
        """It looks at ends only."""
        return APART

    def finish(self) -> None:
        """Keep them."""
        values = self._memory.words.values
        self._found.add(tuple([without_tag(values.get(name, 0)) for name in self._names]))


class HerdMachine(Machine):
    """A litmus test of others' on one architecture; `found` gets its final states."""

    def __init__(
        self,
        architecture: Architecture,
        cpus: int,
        words: Mapping[str, int],
        boot: Boot,
        names: Mapping[Place, str],
    ) -> None:
        parameters = parameters_of(cpus, _TIERS, numa_scan_pages=0, per_cpu_pages=False, fault_locks=False)
        super().__init__(architecture, parameters, _TIERS, _SHAPE, Policy)
        self.words = words
        self.boot = boot
        self.names = names
        self.entries: Mapping[str, int] = {}
        self.takers: Mapping[str, tuple[int, ...]] = {}
        self.invalidators: tuple[int, ...] = ()
        self.found: set[tuple[int, ...]] = set()

    def translates(self, test: HerdTest, takers: Mapping[str, tuple[int, ...]]) -> None:
        """With the test's descriptors, by which these CPUs translate."""
        self.entries, self.takers = translations.entries(test), takers
        self.invalidators = translations.invalidators(test)

    def cpu(self, number: int) -> tuple[Cpu, Program, PerCpu]:
        """One that does what others' TLBIs ask."""
        cpu, program, kernel = super().cpu(number)
        if any(number in those for those in self.takers.values()):
            cpu.invalidators = self.invalidators
        return cpu, program, kernel

    def memory(self) -> Memory:
        """With the test's words."""
        if not self.entries:
            memory = super().memory()
            memory.words.values.update(self.words)
            return memory
        translating = MemoryAndEntries(self.tiers)
        translating.words.values.update(self.words)
        translating.words.begin(self.entries, self.takers)
        return translating

    def checks(self, memory: Memory) -> list[Any]:
        """Nothing is wrong with any of its ends."""
        return [_FinalStates(memory, self.names, self.found)]

    def watchers(self) -> list[Any]:
        """Nobody asks what happened before what."""
        return []

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """The test's thread."""
        return self.boot(cpu.number)


class Outcome(NamedTuple):
    """What a test's runs came to: final states in herd's order; how many fulfil the condition."""

    test: HerdTest
    states: tuple[State, ...]
    positive: int

    @property
    def happens(self) -> bool:
        """Some state is what exists and ~exists ask for, or what forall denies."""
        return self.positive < len(self.states) if self.everywhere else self.positive > 0

    @property
    def everywhere(self) -> bool:
        """The question is forall."""
        return self.test.condition.quantifier == "forall"

    @property
    def observation(self) -> str:
        """Never, Sometimes or Always, of the condition's proposition."""
        if not self.positive:
            return "Never"
        return "Always" if self.positive == len(self.states) else "Sometimes"


AGREES: Final = "agree"
TOO_STRONG: Final = "too strong"
TOO_WEAK: Final = "too weak"
NO_VERDICT: Final = "no verdict"
NOT_TRANSLATABLE: Final = "not translatable"
NOT_FINISHED: Final = "not finished"
KINDS: Final = (AGREES, TOO_STRONG, TOO_WEAK, NO_VERDICT, NOT_TRANSLATABLE, NOT_FINISHED)


class Judged(NamedTuple):
    """A test beside its verdict on one architecture. `kind` is one of `KINDS`: too strong is allowed and not
    seen, too weak is forbidden and seen. `exact`: the verdict is this architecture's own."""

    entry: Entry
    arch: str
    kind: str
    outcome: Outcome | None = None
    reason: str = ""
    exact: bool = False


def judged(entry: Entry, arch: str, bound: bool, stop: Callable[[], bool]) -> Judged:
    """Run a test on an architecture and put it beside its verdict. `bound`: as of a suite."""
    if entry.test is None:
        return Judged(entry, arch, NOT_TRANSLATABLE, reason=entry.problem)
    try:
        outcome = explored(entry.test, ARCHITECTURES[arch], stop)
    except NotTranslatable as problem:
        return Judged(entry, arch, NOT_TRANSLATABLE, reason=str(problem))
    except RecursionError:
        return Judged(entry, arch, NOT_TRANSLATABLE, reason=TOO_DEEP)
    if outcome is None:
        return Judged(entry, arch, NOT_FINISHED, reason="stopped" if stop() else "too many states")
    exact = arch in entry.allowed or not bound
    allowed = entry.allowed.get(arch, entry.allowed.get(""))
    if allowed is None:
        kind = NO_VERDICT
    elif outcome.happens == allowed:
        kind = AGREES
    else:
        kind = TOO_STRONG if allowed else TOO_WEAK
    reason = ""
    if kind == AGREES and entry.states is not None and entry.test.translation is None:
        addresses = outcome.test.addresses
        seen = {herd_state(printed(outcome.test.places, one, addresses)) for one in outcome.states}
        if seen - entry.states:
            kind, reason = TOO_WEAK, "final states that the verdict's run has not"
        elif entry.states - seen and not bound:
            kind, reason = TOO_STRONG, "without final states of the verdict's run"
    return Judged(entry, arch, kind, outcome, reason, exact)


def threads_of(test: HerdTest) -> list[Thread]:
    """Its threads' lines. Raises NotTranslatable."""
    if test.translation is not None:
        return list(test.translation.threads)
    if test.language == "RISCV":
        if len(riscv.sizes(test.threads)) > 1:
            raise NotTranslatable("accesses of mixed sizes")
        return riscv.threads(test.threads)
    if test.language == "C":
        return linux_c.threads(test.threads, test.addresses)
    raise NotTranslatable(f"the language {test.language}")


def explored(test: HerdTest, architecture: Architecture, stop: Callable[[], bool]) -> Outcome | None:
    """All its final states; None if `stop` said so or there are too many. Raises NotTranslatable."""
    threads = threads_of(test)
    homes = test.translation.homes if test.translation is not None else test.addresses
    wanted = [[name for thread, name in test.places if thread == at] for at in range(len(threads))]
    names = {
        (thread, name): f"{thread}:{name}" if thread >= 0 else word_at(homes[name])
        for thread, name in test.places
    }
    words = {word_at(homes[name]): value for name, value in test.words.items()}
    translating = translations.of(test)
    found: set[tuple[int, ...]] = set()
    for boot, takers in _boots(test, threads, wanted, architecture, translating):
        machine = HerdMachine(architecture, len(threads), words, boot, names)
        if translating:
            machine.translates(test, takers)
        learned = LearnedMachine(machine)
        # What TLBs may hold goes by CPU: CPUs that run alike are not alike in that.
        reduce = (AMPLE, PERSISTENT) if translating else REDUCTIONS
        run = exhaust(learned, stop, MOST_STATES, reduce, all_rules=True)
        found |= machine.found
        learned.close()
        if not run.complete:
            return None
    states = [dict(zip(test.places, values, strict=True)) for values in sorted(found)]
    kept = tuple([state for state in states if test.filter is None or test.filter(state)])
    return Outcome(test, kept, sum(test.condition.holds(state) for state in kept))


def _boots(
    test: HerdTest,
    threads: Sequence[Thread],
    wanted: Sequence[Sequence[str]],
    architecture: Architecture,
    pages: Sequence[Pages],
) -> Iterator[tuple[Boot, Mapping[str, tuple[int, ...]]]]:
    """What CPUs boot, and who translates by which descriptor: once, or for each way through the branches."""
    registers = [test.registers.get(at, {}) for at in range(len(threads))]
    names = [{name: f"{at}:{name}" for name in wanted[at]} for at in range(len(threads))]
    if not architecture.loads_wait:
        yield (lambda at: in_order(threads[at], registers[at], names[at])), {}
        return
    homes = test.translation.homes if test.translation is not None else test.addresses
    start = {word_at(homes[name]): value for name, value in test.words.items()}
    words = [word_at(address) for address in homes.values()]
    # Where nothing compares a word with a number, stores are told apart by more than what they store.
    tags = test.language != "C" and not any(
        isinstance(line, Access) and line.what.kind == "cmpxchg" for thread in threads for line in thread
    )
    by_thread: Sequence[Pages | None] = pages or [None] * len(threads)

    def tagged(way: Way, at: int) -> Way:
        return _tagged(way, at) if tags else way

    all_stores = [
        _stores([tagged(way, at) for way in _any_ways(thread, registers[at], by_thread[at])], True)
        for at, thread in enumerate(threads)
    ]
    known = told_apart(all_stores, words, start)
    apart = translations.EVERYTHING if known.issuperset(words) else known
    each = []
    for at, thread in enumerate(threads):
        # What its own store-conditional stores comes after what its load-reserved has read.
        mine = _stores([tagged(way, at) for way in _any_ways(thread, registers[at], by_thread[at])], False)
        reserved = told_apart([*all_stores[:at], mine, *all_stores[at + 1 :]], words, start)
        found = ways(thread, registers[at], apart, reserved, by_thread[at])
        each.append([trimmed(tagged(way, at), wanted[at]) for way in found])
    if prod(map(len, each)) > MOST_WAYS:
        raise NotTranslatable("too many branches")
    for chosen in product(*each):
        yield _boot_of(chosen, names), translations.takers(chosen)


def _boot_of(chosen: tuple[Way, ...], names: Sequence[Mapping[str, str]]) -> Boot:
    handles = [tuple([one.into for one in way.code if one.into >= 0]) for way in chosen]
    finals = [
        tuple([(words[register], operand) for register, operand in way.registers.items()])
        for way, words in zip(chosen, names, strict=True)
    ]
    return lambda at: late(chosen[at].code, handles[at], finals[at])


_TAGGED: Final = frozenset({"store", "swap", "conditional"})
_Stores = dict[tuple[Operand, Operand], int]


def _tagged(way: Way, thread: int) -> Way:
    """Each store with a number of its own."""
    code = enumerate(way.code, 1 + thread * MOST_LINES)
    return way._replace(
        code=tuple([one._replace(tag=number) if one.kind in _TAGGED else one for number, one in code])
    )


def _any_ways(thread: Thread, initial: Mapping[str, int], pages: Pages | None) -> list[Way]:
    return ways(thread, initial, translations.EVERYTHING, translations.EVERYTHING, pages)


def _stores(found_ways: Sequence[Way], conditional: bool) -> _Stores:
    """How often a thread stores what to which word, on the way that does it most; None is any value."""
    found: _Stores = {}
    for way in found_ways:
        of_way: _Stores = {}
        for one in way.code:
            if one.writes and (conditional or one.kind != "conditional"):
                value = folded(one.value) if one.kind in _TAGGED else None
                key = (one.word, ("tag", one.tag) if one.tag else value if isinstance(value, int) else None)
                of_way[key] = of_way.get(key, 0) + 1
        for key, times in of_way.items():
            found[key] = max(found.get(key, 0), times)
    return found


def told_apart(stores: Sequence[_Stores], words: Collection[str], start: Mapping[str, int]) -> frozenset[str]:
    """Words that are given no value twice, nor the one that they have at the start, as far as can be told."""
    times = {(word, start.get(word, 0)): 1 for word in words}
    for of_thread in stores:
        for key, number in of_thread.items():
            if not isinstance(key[0], str):
                if isinstance(key[1], tuple):  # a tag: nobody else has it, wherever it is stored
                    continue
                return frozenset()
            times[key] = times.get(key, 0) + number
    lost = {word for (word, value), number in times.items() if number > 1 or value is None}
    return frozenset(words) - lost
