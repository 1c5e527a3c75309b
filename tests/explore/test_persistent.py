"""What may go first and alone: nobody can tell, and a search that relies on it misses nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from emulator.checks.onlooker import APART, Check, Meeting
from emulator.checks.violation import Violation
from emulator.explore.exhaustive import AMPLE, PERSISTENT, REDUCTIONS, exhaust
from emulator.explore.learned import LearnedMachine, state_key
from emulator.explore.parts import NOTHING, Option, Touched
from emulator.hardware.operations import AtomicAdd, Cycle, Load, Operation, SmpMb, Store
from emulator.hardware.operations.places import nowhere
from emulator.hardware.operations.table import Answers, Order, Price, Row, Where
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.machine.litmus import MM, Forbidden, Litmus, LitmusMachine
from emulator.memory.memory import Memory
from emulator.policies.immediate import Immediate
from scenarios.subjects.programs import LitmusName, machine_of
from tests.explore.broken_litmus import empty
from tests.explore.small_litmus import PAGE, machine, one_page, polling

CELLS = [
    ("deferred-copy", "migrc:v3", "x86"),
    ("fork-while-moving", "migrc:rfc2", "sc"),
    ("mm-left-meanwhile", "migrc:v9", "sc"),
    ("huge-split", "migrc:v3", "riscv"),
    ("truncate-while-moving", "immediate", "x86"),
    ("hint-promotes-pending", "migrc:v3", "sc"),
    ("two-adders-one-taker", "migrc:rfc2", "riscv"),
]


# --- transitions that do not meet ------------------------------------------------------------------


def _touched(learned: LearnedMachine, option: Option) -> Touched:
    edge = learned.snapshot()[1].edges[option.action] if option.action >= 0 else None
    return learned.dependence.done(option, edge[0] if edge else None)


def _both(learned: LearnedMachine, *transitions: Any) -> Any:
    """Take both: where that leads, and what broke and was answered on the way."""
    told = []
    for wanted in transitions:
        option = next((one for one in learned.options(wanted.cpu) if one.transition == wanted), None)
        if option is None:
            return "not possible"
        edge = learned.snapshot()[1].edges[option.action] if option.action >= 0 else None
        learned.violation = None
        learned.take(option)
        told.append((wanted.cpu, edge and edge[0], learned.violation and learned.violation.rule))
        if learned.violation is not None:
            return "broken"
    return state_key(learned.snapshot()), sorted(told)


def _told_apart(learned: LearnedMachine, seed: int, runs: int) -> tuple[int, list[str]]:
    """Pairs in random runs that are said not to meet: how many, and those that cannot change places."""
    rng = random.Random(seed)
    pairs, wrong = 0, []
    for _ in range(runs):
        learned.reset()
        while (options := learned.options()) and learned.violation is None:
            here = learned.snapshot()
            for one in options if rng.random() < 0.3 else ():
                for other in options:
                    learned.resume(here)
                    met = _touched(learned, one).meets(_touched(learned, other))
                    if one.cpu >= other.cpu or met & learned.dependence.counting:
                        continue
                    pairs += 1
                    ways = []
                    for order in ((one, other), (other, one)):
                        learned.resume(here)
                        ways.append(_both(learned, *[option.transition for option in order]))
                    if ways[0] != ways[1]:
                        wrong.append(f"{one.operation} and {other.operation}: {ways}")
            learned.resume(here)
            learned.violation = None
            learned.take(rng.choice(learned.options()))
    return pairs, wrong


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_what_does_not_meet_can_change_places(cell: tuple[str, str, str]) -> None:
    name, policy, architecture = cell
    learned = LearnedMachine(machine_of(LitmusName(name), policy, architecture))
    pairs, wrong = _told_apart(learned, 1, 12)
    assert pairs > 20
    assert not wrong


def test_it_shows_where_that_is_said_too_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = LearnedMachine(machine_of(LitmusName("two-adders-one-taker"), "migrc:rfc2", "sc"))
    monkeypatch.setattr(learned.dependence, "done", lambda option, answer: NOTHING)
    assert _told_apart(learned, 1, 6)[1]


# --- what a handler leaves behind --------------------------------------------------------------------


async def _tells_and_flushes(cpu: PerCpu) -> None:
    await Store("x", 1)
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1, freed_tables=False)


def _sees(step: Any) -> Any:
    async def program(cpu: PerCpu) -> None:
        early = await Load("x") == 0
        await step()
        if early and cpu.tlbstate.ctxs[1].tlb_gen > 1:
            raise Forbidden("seen", "the handler ran between the load and the next line")

    return program


@pytest.mark.parametrize("names", [(AMPLE,), (PERSISTENT,), REDUCTIONS, ()])
@pytest.mark.parametrize("step", [Cycle, SmpMb])
def test_a_program_sees_what_a_handler_has_left(step: type[Any], names: tuple[str, ...]) -> None:
    """So nothing of a CPU that can be interrupted goes first."""
    litmus = Litmus("seen", "?", (_tells_and_flushes, _sees(step)), one_page, (), drain=False)
    assert exhaust(LearnedMachine(machine(litmus, "sc")), reduce=names, all_rules=True).rules == {"seen"}


# --- checks of one's own -----------------------------------------------------------------------------


class LastIsMine(Check):
    """Objects if the last to add is CPU 1, to whatever word."""

    def __init__(self) -> None:
        super().__init__()
        self.last = -1

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        if isinstance(operation, AtomicAdd):
            self.last = cpu

    def finish(self) -> None:
        if self.last == 1:
            self.violations.append(Violation("last by CPU 1", 1, "it was"))

    def state(self) -> int:
        return self.last

    def restore(self, state: int) -> None:
        self.last = state


class LastIsMineDeclared(LastIsMine):
    def meets(self, cpu: int, operation: Operation, answer: Any) -> Meeting:
        return Meeting((), (("the last to add",),)) if isinstance(operation, AtomicAdd) else APART


class LastIsMineAgain(LastIsMineDeclared):
    """What its base says it meets need not hold for it."""


def _adds(word: str) -> Any:
    async def program(cpu: PerCpu) -> None:
        await AtomicAdd(word, 1)
        await AtomicAdd(word, 1)

    return program


@pytest.mark.parametrize("kind", [LastIsMine, LastIsMineDeclared, LastIsMineAgain])
def test_a_check_that_can_tell_more_is_told_more(kind: type[LastIsMine]) -> None:
    class Checked(LitmusMachine):
        def checks(self, memory: Memory) -> list[Any]:
            return [*super().checks(memory), kind()]

    litmus = Litmus("own", "?", (_adds("a"), _adds("b")), empty, (), drain=False)
    learned = LearnedMachine(Checked(litmus, ARCHITECTURES["sc"], Immediate))
    assert learned.dependence.declared is (kind is LastIsMineDeclared)
    assert exhaust(learned, all_rules=True).rules == {"last by CPU 1"}


# --- the rest ----------------------------------------------------------------------------------------


def test_those_who_never_meet_go_one_after_the_other() -> None:
    litmus = Litmus("apart", "?", tuple(_adds(word) for word in "abcd"), empty, (), drain=False)
    built = LitmusMachine(litmus, ARCHITECTURES["sc"], Immediate)
    assert exhaust(LearnedMachine(built), reduce=False).states == 3**4
    assert exhaust(LearnedMachine(built)).states == 2 * 4 + 1


def test_who_polls_puts_nobody_off_for_ever() -> None:
    for second in (("a", "b"), ("b", "a")):
        found = exhaust(LearnedMachine(machine(polling(second), "sc")), reduce=(PERSISTENT,))
        assert found.complete and (found.endless > 0) is (second == ("b", "a"))


def test_an_operation_that_does_not_say_what_it_touches_is_refused() -> None:
    with pytest.raises(TypeError, match="does not say what it touches"):

        @Row(Where.MEMORY, Order.LOAD, nowhere("nobody has thought about it"), Price.LINE)
        class Forgotten(Answers[None]):
            word: str
