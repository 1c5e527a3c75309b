"""What is learnt by footprints is what the parts of a machine do, whatever has been learnt before."""

from __future__ import annotations

import random
from typing import Any

import pytest

from emulator.explore.cells import Cells, Map, Row
from emulator.explore.exhaustive import exhaust
from emulator.explore.footprints import Footprints, after
from emulator.explore.learned import LearnedMachine
from emulator.explore.watched_parts import Unwatched
from emulator.machine.builder import Machine
from emulator.machine.litmus import LitmusMachine
from emulator.machine.shared import Shared
from emulator.memory.memory import Memory
from emulator.memory.words import Words
from scenarios.subjects.programs import LitmusName, machine_of

CELLS = [
    ("deferred-copy", "migrc:v3", "riscv"),
    ("fork-while-moving", "migrc:rfc2", "sc"),
    ("huge-split", "migrc:v9", "x86"),
    ("truncate-while-moving", "immediate", "riscv"),
    ("mm-left-meanwhile", "migrc:rfc2", "riscv"),
    ("two-adders-one-taker", "mistake:hung-too-early", "x86"),
    ("two-allocators", "migrc:v3", "sc"),
    ("munmap-writeback", "mistake:rmap-before-flush", "x86"),
]


def differences(machine: Machine, seed: int, runs: int) -> list[str]:
    """Random runs beside the parts themselves: where states, answers or broken rules are others."""
    learned = LearnedMachine(machine)
    rng = random.Random(seed)
    numbers: dict[Any, int] = {}
    for _ in range(runs):
        learned.reset()
        memory = machine.memory()
        checks = machine.checks(memory)
        shared, watchers = Shared(memory, machine.cpus, checks), machine.watchers()
        while (options := learned.options()) and learned.violation is None:
            option = rng.choice(options)
            at, clock = learned.snapshot()[1:]
            learned.take(option)
            answer, broken = None, []
            if option.action >= 0:
                found = at.edges[option.action]
                assert found is not None
                cpu, operation = learned.sharing.asked(option.action)
                answer = shared.execute(cpu, operation)
                if (found[0], type(found[0])) != (answer, type(answer)):
                    return [f"{operation} answers {found[0]}, not {answer}"]
                broken += [one for check in checks for one in check.violations]
            event = learned.edge_of(option, answer).event
            if event >= 0:
                learned.watching.learn(clock, event)
                for watcher in watchers:
                    watcher.happened(*learned.watching.events[event])
                broken += [one for watcher in watchers for one in watcher.violations]
            after = learned.snapshot()
            told = [
                (numbers.setdefault(("shared", shared.state()), after[1].number), after[1].number),
                (
                    numbers.setdefault(tuple([one.state() for one in watchers]), after[2].number),
                    after[2].number,
                ),
                (learned.sharing.plainly(after[1].state), shared.state()),
                (learned.watching.plainly(after[2].state), tuple([one.state() for one in watchers])),
                (learned.violation is None, not broken),
            ]
            if wrong := [f"{option.operation}: {one} is not {other}" for one, other in told if one != other]:
                return wrong
    return []


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_it_does_what_the_parts_do(cell: tuple[str, str, str]) -> None:
    name, policy, architecture = cell
    assert not differences(machine_of(LitmusName(name), policy, architecture), 1, 5)


def test_a_read_that_is_not_noted_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def look(self: Cells, cell: int) -> int:
        nonlocal seen
        seen += 1
        if seen % 7 and cell not in self.read and cell not in self.written:
            self.read[cell] = self.now[cell]
        return self.now[cell]

    monkeypatch.setattr(Cells, "look", look)
    machine = machine_of(LitmusName("deferred-copy"), "migrc:v3", "riscv")
    try:
        assert differences(machine, 1, 20)
    except AssertionError as noticed:
        assert "what is read next" in str(noticed) or "differences" in str(noticed)


def test_a_part_that_keeps_something_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = Words.__init__

    def with_more(self: Words) -> None:
        plainly(self)
        self.more = {}  # type: ignore[attr-defined]

    monkeypatch.setattr(Words, "__init__", with_more)
    with pytest.raises(Unwatched, match=r"Words\.more is not known"):
        LearnedMachine(machine_of(LitmusName("shootdown"), "immediate", "sc"))


def test_an_action_depends_on_what_it_reads_and_on_nothing_else() -> None:
    cells = Cells()
    words = Map(cells, {"a": 1, "b": 7}, 0)
    done = []

    def act(action: int) -> int:
        done.append(action)
        if words.get("a", 0):
            words["c"] = words.get("b", 0) + 1
        return len(done)

    start = cells.state()
    footprints = Footprints(cells, act)
    first = footprints.leaf(start, 0)
    there = after(start, first.changes)
    cells.load(there)
    assert dict(words) == {"a": 1, "b": 7, "c": 8}
    # It has not read what it has written.
    assert footprints.leaf(there, 0) is first
    cells.load(there)
    words["b"] = 0
    elsewhere = cells.state()
    assert footprints.leaf(elsewhere, 0) is not first
    cells.load(elsewhere)
    del words["a"]
    assert footprints.leaf(cells.state(), 0).changes == ()
    assert done == [0, 0, 0]


def test_who_has_asked_for_all_keys_learns_anew_when_there_are_more() -> None:
    cells = Cells()
    words = Map(cells, {"a": 1}, 0)

    def act(action: int) -> Any:
        if action:
            words["b"] = 5
            return "done"
        return sorted(words.items())

    footprints = Footprints(cells, act)
    start = cells.state()
    assert footprints.leaf(start, 0).outcome == [("a", 1)]
    more = after(start, footprints.leaf(start, 1).changes)
    assert footprints.leaf(more, 0).outcome == [("a", 1), ("b", 5)]
    assert footprints.leaf(start, 0).outcome == [("a", 1)]


def test_what_can_be_changed_where_it_is() -> None:
    cells = Cells()
    lists = Map(cells, {"a": [1]}, None, lambda key, kept: list(kept), tuple)
    row = Row(cells, [0, 0])
    cells.close()
    start = cells.state()
    cells.load(start)
    lists["a"].append(2)
    row[1] += 3
    cells.close()
    there = cells.state()
    cells.load(start)
    assert (lists["a"], list(row)) == ([1], [0, 0])
    cells.close()
    assert not cells.written
    cells.load(there)
    assert (lists["a"], list(row)) == ([1, 2], [0, 3])
    del lists["a"]
    cells.close()
    assert "a" not in lists and len(lists) == 0


class OwnMemory(Memory):
    """Nobody knows what it keeps."""


def test_a_memory_of_ones_own_is_one_cell() -> None:
    class Owning(LitmusMachine):
        def memory(self) -> Memory:
            memory = super().memory()
            memory.__class__ = OwnMemory
            return memory

    machine = machine_of(LitmusName("shootdown"), "immediate", "sc")
    expected = exhaust(LearnedMachine(machine))
    machine.__class__ = Owning
    found = LearnedMachine(machine)
    assert exhaust(found) == expected
    assert len(found.sharing.footprints.cells.now) == 1
