"""What CPUs can reach, found out before anything is proved: a search that mends itself.

Persistent sets rely on what CPUs can reach, and that is only known when it has been searched (`persistent`).
A search that begins anew whenever something more is reached would do nearly all of its work many times. So
this one goes back to just those states whose set is none any more. It keeps no account of cycles or of
executions: the search that proves comes after it, and finds nothing new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from emulator.checks.violation import Violation
from emulator.explore.learned import LearnedMachine, Snapshot, state_key
from emulator.explore.parts import Option
from emulator.explore.persistent import PersistentSets
from emulator.hardware.cpu import Transition

_ASKED_EVERY = 1024

Choose = Callable[[Snapshot], tuple[list[Option], int]]
"""What is followed in a state, and the mask of CPUs if these are a persistent set; else not above 0."""


class Learning(NamedTuple):
    """`states` that were seen, in `steps` transitions; `ended` runs came to an end. `violation`: what broke
    first, after `schedule`."""

    states: int
    steps: int
    ended: int
    complete: bool
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()


class _Seen(NamedTuple):
    state: int
    alone: int
    parent: int
    transition: Transition | None


def learn(
    machine: LearnedMachine,
    sets: PersistentSets,
    choose: Choose,
    key_of: Callable[[Snapshot], int],
    stop: Callable[[], bool],
    max_states: int,
    all_rules: bool,
) -> Learning:
    """Search until nothing is learnt any more, a rule breaks (not with `all_rules`), or `stop` says so.

    States with the same `key_of` are one.
    """
    seen: dict[int, _Seen] = {}
    ahead: list[tuple[Snapshot, int, list[Option]]] = []
    widened: set[int] = set()
    steps = ended = 0

    def enter(snapshot: Snapshot, key: int, parent: int, transition: Transition | None) -> None:
        options, alone = choose(snapshot)
        seen[key] = _Seen(state_key(snapshot), alone, parent, transition)
        if options:
            ahead.append((snapshot, key, options))
        else:
            nonlocal ended
            ended += 1

    def way_to(key: int) -> list[Transition]:
        found = []
        while (transition := seen[key].transition) is not None:
            found.append(transition)
            key = seen[key].parent
        return found[::-1]

    start = machine.snapshot()
    enter(start, key_of(start), -1, None)
    while True:
        while ahead:
            snapshot, key, options = ahead.pop()
            for option in options:
                machine.resume(snapshot)
                machine.violation = None
                machine.path = []
                machine.take(option)
                steps += 1
                if len(seen) > max_states or (steps % _ASKED_EVERY == 0 and stop()):
                    return Learning(len(seen), steps, ended, False)
                if machine.violation is None:
                    after = machine.snapshot()
                    after_key = key_of(after)
                    if after_key not in seen:
                        enter(after, after_key, key, option.transition)
                elif not all_rules:
                    schedule = (*way_to(key), option.transition)
                    return Learning(len(seen), steps, ended + 1, False, machine.violation, schedule)
                elif key not in widened:
                    # The run ends here, and what was put off is put off for ever.
                    widened.add(key)
                    ahead.append((snapshot, key, _others(machine, snapshot, options)))
        if sets.look():
            return Learning(len(seen), steps, ended, True)
        states = machine.states()
        for key, one in list(seen.items()):
            if one.alone > 0 and not sets.holds(snapshot := states(one.state), one.alone):
                options, alone = choose(snapshot)
                seen[key] = one._replace(alone=alone)
                ahead.append((snapshot, key, options))


def _others(machine: LearnedMachine, snapshot: Snapshot, options: list[Option]) -> list[Option]:
    machine.resume(snapshot)
    return [one for one in machine.options() if one not in options]
