"""Which disturbances a stressed run has: every run draws which kinds are on, and how strong.

With everything on at once nothing is ever late by much (Groce et al., "Swarm Testing", ISSTA 2012). What most
races need is that a CPU stands still at the right place while the others get far (Burckhardt et al., ASPLOS
2010). Successive runs do that in different ways:

* one CPU stands still at a step; those steps are spread evenly over the program, and few runs leave no gap;
* one CPU after the other does that, however little it has to do: many a race is that one of them is late;
* CPUs stand still before they read (or write) places where several CPUs meet, so that whoever writes (reads)
  comes first; where those are is known from earlier runs. It is some reads, the last read or the last write
  of every place, or most writes.

All depends on the seed, the run's number and what earlier runs told of the program, on nothing else.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from statistics import median_low
from typing import Final

from actors.mode import Chaos

LEVELS: Final = 3
DEFAULT_LEVEL: Final = 2
# How strong each kind is, by level.
_STRENGTH: Final = (0.0, 0.5, 1.0, 2.0)
# What successive runs do: stand still at a step of all, at one of the next CPU, before reads, last reads,
# writes, last writes, not at all.
_TURNS: Final = "slvewvlrvl" + "flvswvlevl"
_DENSITIES: Final = {"r": 0.15, "l": 1.0, "w": 0.9, "e": 1.0}
_MOST_TIMES: Final = 2  # of accesses of one CPU to one place, these may be stopped before
_GOLDEN: Final = 0.6180339887498949
_PAUSE_US: Final = 400
_REMEMBERED: Final = 9  # runs whose lengths count


class Pace:
    """What is known of a program by now: how many steps each CPU takes, and where CPUs meet."""

    def __init__(self, cpus: int) -> None:
        self.steps = [40.0] * cpus
        self.contested: set[tuple[int, str, int]] = set()
        self._lengths: list[deque[int]] = [deque(maxlen=_REMEMBERED) for _ in range(cpus)]

    def add(self, steps: Sequence[int], contested: Iterable[tuple[int, str, int]]) -> None:
        """Take a run into account that has come to its end."""
        # The median: who polls for what a stopped CPU holds up takes thousands of steps for once.
        for lengths, count in zip(self._lengths, steps, strict=True):
            lengths.append(count)
        self.steps = [float(median_low(lengths)) for lengths in self._lengths]
        self.contested.update(
            (cpu, access, number)
            for cpu, access, count in contested
            for number in range(1, min(count, _MOST_TIMES) + 1)
        )

    def lengths(self) -> list[list[int]]:
        """Of each CPU, how many steps it took in the runs that are remembered."""
        return [list(lengths) for lengths in self._lengths]

    def come_back(self, lengths: Sequence[Sequence[int]], contested: Iterable[tuple[int, str, int]]) -> None:
        """Take over what another one knew."""
        for steps in zip(*lengths, strict=True):
            self.add(steps, ())
        self.contested.update(contested)


def draw_chaos(seed: int, run: int, level: int, pace: Pace) -> Chaos:
    """The disturbances of run number `run`; level 0 has none but the order in which a CPU does things."""
    lot = random.Random(f"{seed}/{run}")
    strength = _STRENGTH[level]
    chaos = Chaos(lot.getrandbits(62))
    if not strength:
        return chaos
    turn = _TURNS[run % len(_TURNS)]
    pauses = _drawn(lot, 0.25, min(0.5, 0.1 * strength)) if turn in "sv" else 0.0
    chaos = chaos._replace(
        late_interrupts=_drawn(lot, 0.5, min(0.95, 0.9 * strength)),
        late_effects=_drawn(lot, 0.5, min(0.95, 0.9 * strength)),
        pauses=pauses,
        pause_us=int(_PAUSE_US * strength) if pauses else 0,
        walks=_drawn(lot, 0.5, min(0.9, 0.3 * strength)),
    )
    if turn == "f":
        return chaos
    if turn in _DENSITIES and pace.contested:
        first = seed + _turns(run, turn) + list(_DENSITIES).index(turn)
        return _meeting(chaos, lot, turn, first, pace)
    # A sequence that leaves the smallest gaps, from a place that the seed draws.
    before = _turns(run, turn)
    place = (random.Random(seed).random() + before * _GOLDEN) % 1.0
    if turn == "s":
        return _stopped(chaos, lot, place, pace)
    # Its last step is not one of them: nothing that others could be waiting for comes after it.
    victim = (seed + before) % len(pace.steps)
    order = [cpu for cpu in range(len(pace.steps)) if cpu != victim]
    lot.shuffle(order)
    stop = (victim, int(place * (pace.steps[victim] - 1)))
    return chaos._replace(order=(victim, *order), stops=(stop,))


def _turns(run: int, kinds: str) -> int:
    """How many runs before this one had a turn of these kinds."""
    whole, rest = divmod(run, len(_TURNS))
    return sum(whole * _TURNS.count(kind) + _TURNS[:rest].count(kind) for kind in kinds)


def _drawn(lot: random.Random, chance: float, most: float) -> float:
    on, share = lot.random() < chance, lot.random()
    return round((0.3 + 0.7 * share) * most, 3) if on else 0.0


def _stopped(chaos: Chaos, lot: random.Random, place: float, pace: Pace) -> Chaos:
    """Let one CPU stand still at `place` of all steps, and the others come when it does."""
    victim, step = _at(place, pace.steps)
    others = [cpu for cpu in range(len(pace.steps)) if cpu != victim]
    lot.shuffle(others)
    stops = [(victim, step)]
    if others and lot.random() < 0.4:
        # One of the others stops half-way, until the first is through.
        stops.append((others[0], lot.randrange(max(1, int(pace.steps[others[0]])))))
    return chaos._replace(order=(victim, *others), stops=tuple(stops))


def _meeting(chaos: Chaos, lot: random.Random, turn: str, first: int, pace: Pace) -> Chaos:
    """Let every CPU stand still before its reads, or writes, of places where it meets others.

    CPU `first`, modulo their number, starts.
    """
    density = _DENSITIES[turn]
    kind = "w" if turn in "we" else "r"
    last: dict[tuple[int, str], int] = {}
    for cpu, access, number in pace.contested:
        last[cpu, access] = max(number, last.get((cpu, access), 0))
    meetings = [
        (cpu, access, number)
        for cpu, access, number in sorted(pace.contested)
        if access[0] == kind and (turn not in "le" or number == last[cpu, access]) and lot.random() < density
    ]
    others = list(range(len(pace.steps)))
    order = [others.pop(first % len(others))]
    lot.shuffle(others)
    return chaos._replace(order=(*order, *others), meetings=tuple(meetings))


def _at(place: float, steps: Sequence[float]) -> tuple[int, int]:
    """The CPU and its step at a place between 0 and 1 of all steps.

    The longer a program the more there is to get in between of: its steps count that many times.
    """
    left = place * sum(count * count for count in steps)
    for cpu, count in enumerate(steps):
        if left < count * count:
            return cpu, int(left / count)
        left -= count * count
    return len(steps) - 1, int(steps[-1])
