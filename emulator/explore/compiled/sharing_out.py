"""A search of every interleaving that several shares do together, each with the states whose hash is its own.

One process, the caller's, learns and tells all (`teacher`); shares follow states and send each other what
belongs to another, by way of a crew (`Crew`), which knows what a share's process is.

The same states are met as by the search of one process, and nothing is lost:

* What is followed in a state depends on the state and on what was relied on when the round began: what CPUs
  can reach, and where they have cycles. A round counts only if that still holds at its end, and all shares
  begin anew if not, as one process does (`persistent`).
* Nothing is put off for ever: where a CPU's own graph may lead back, everything is followed (`cycles`). One
  process looks whether the state is on the way behind it; so where programs poll, states may be others.
* Nobody is told of a state that needs more to be known than he knows: an order has all lessons that there are
  by then, and so those that whoever sent the parcel had.
* The end is exact. All orders go out from here, all reports and parcels come back here: if no order is under
  way, no parcel is left, nothing lacks and no share has states ahead, then nothing moves any more.

If CPUs have cycles, all states are followed once more to find out who leads to whom, and from the ends of
runs it is gone backwards: what is not met then are states from which no run ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from emulator.explore.compiled.share import (
    LINK,
    MOST_MIB,
    NOWHERE,
    PIECE,
    RETURN,
    SEARCH,
    TABLE_PIECE,
    Begin,
    Kept,
    Order,
    Report,
    Share,
)
from emulator.explore.compiled.teacher import Teacher, questions
from emulator.explore.compiled.walker import BY
from emulator.explore.exhaustive import Exhausted
from emulator.explore.learned import LearnedMachine

BUDGET: Final = 30_000  # states that a share follows before it is heard again
_LESSON: Final = 64  # things that are learnt before others are heard again
BROKEN: Final = "a rule broke"
MEMORY: Final = "memory"
STATES: Final = "states"


class Lost(Exception):
    """A share's process is no more; the message says which."""


class Progress(NamedTuple):
    """How far a search is: `frontier` are states still to be followed, `memory` bytes of the shares'
    processes, as far as they have reported."""

    states: int
    frontier: int
    steps: int
    memory: int


Stop = Callable[[Progress], str]
"""Looks, and says why the search has to end, or nothing."""

Spare = Callable[[int], int | None]
"""How many bytes more all shares may take, as their processes have this many; None: whatever there is."""


class Crew(Protocol):
    """The shares' processes. All raise Lost."""

    count: int

    def send(self, share: int, order: Order, parcels: Sequence[Any]) -> None:
        """Have a share carry out an order; nothing else is under way there."""

    def receive(self, patient: bool) -> Iterator[tuple[int, Report, list[Any]]]:
        """Reports that have come, with a parcel for each share; who is patient waits a while for one."""

    def ask(self, share: int, question: str, *arguments: Any) -> Any:
        """What a method of a share answers, where nothing is under way."""


class Here:
    """A crew in this very process, whose memory the caller knows."""

    def __init__(self, count: int, cpus: int) -> None:
        self.count = count
        self._shares = [Share(cpus) for _ in range(count)]
        self._reports: deque[tuple[int, Report, list[Any]]] = deque()

    def send(self, share: int, order: Order, parcels: Sequence[Any]) -> None:
        report, sent = self._shares[share].work(order, parcels)
        self._reports.append((share, report._replace(memory=0), sent))

    def receive(self, patient: bool) -> Iterator[tuple[int, Report, list[Any]]]:
        while self._reports:
            yield self._reports.popleft()

    def ask(self, share: int, question: str, *arguments: Any) -> Any:
        return getattr(self._shares[share], question)(*arguments)


class Unfinished(NamedTuple):
    """A search that was stopped: all that it needs to go on, but for the blocks of bytes, which `blocks` has.

    `steps` are those of earlier rounds.
    """

    rounds: int
    steps: int
    course: str
    shares: list[Kept]


class SharedSearch:
    """A search of one machine by these reductions. ImportError and TooLarge as `Graphs` raises them.

    `searching`: it has not met all states yet. `can_go_on`: it was stopped then and has lost nothing, so that
    it can be kept.
    """

    def __init__(
        self,
        machine: LearnedMachine,
        names: tuple[str, ...],
        crew: Crew,
        max_states: int,
        stop: Stop,
        spare: Spare = lambda taken: None,
    ) -> None:
        self.searching = True
        self.can_go_on = False
        self._teacher = Teacher(machine, names)
        self._names = tuple([name for name in names if name in BY])  # swaps are known to one process only
        self._crew = crew
        self._max_states = max_states
        self._stop = stop
        self._spare = spare
        self._rounds = 0
        self._steps = 0  # of earlier rounds
        self._all = range(crew.count)
        self._parcels: list[list[Any]] = [[] for _ in self._all]  # that wait for a share
        self._under_way: list[list[Any]] = [[] for _ in self._all]  # that a share has been sent
        self._taught = [0 for _ in self._all]
        self._reports: list[Report | None] = [None for _ in self._all]
        self._again = [False for _ in self._all]
        self._wanted: deque[bytes] = deque()
        self._broken: tuple[int, int, int] | None = None  # share, state, option

    # --- round after round -----------------------------------------------------------------------

    def run(self) -> Exhausted:
        """To the first violation, to the end, or until it has to stop: `stopped` says why."""
        try:
            if not self._rounds:
                self._begin_round()
            while not (ended := self._on(SEARCH)) and not self._teacher.look():
                self._steps += self.progress().steps
                self._begin_round()
            found = self._found(ended)
            if self._broken is not None:
                self._violated(found, *self._broken)
            elif not ended:
                self._finished(found)
            return found
        except Lost as problem:
            self.can_go_on = False
            found = self._found(str(problem))
            found.lost = True
            return found

    def _begin_round(self) -> None:
        self._rounds += 1
        self._reports = [None for _ in self._all]

    def progress(self) -> Progress:
        """How far it is, as far as shares have reported."""
        reports = [one for one in self._reports if one is not None]
        return Progress(
            sum(one.states for one in reports),
            sum(one.ahead + one.waiting for one in reports),
            sum(one.transitions for one in reports),
            sum(one.memory for one in reports),
        )

    def _on(self, errand: int) -> str:
        """Have shares work until nothing moves any more; or why it had to end."""
        self.searching = errand == SEARCH
        idle = set(self._all)
        turned = [errand == SEARCH for _ in self._all]
        ended = ""
        while True:
            for share in sorted(idle):
                if not ended and (not turned[share] or self._has_to_do(share)):
                    turned[share] = True
                    idle.remove(share)
                    self._send(share, errand)
            if len(idle) == len(self._all) and (ended or not self._wanted):
                self.can_go_on = self.searching and bool(ended) and self._broken is None
                assert ended or not any(one is None or one.waiting for one in self._reports)
                return ended
            for share, report, parcels in self._crew.receive(patient=ended != "" or not self._wanted):
                idle.add(share)
                ended = self._heard(share, report, parcels) or ended
            if self._wanted and not ended:
                self._teacher.teach(self._wanted.popleft())
            ended = ended or self._stop(self.progress())

    def _has_to_do(self, share: int) -> bool:
        report = self._reports[share]
        if report is None or report.ahead or self._parcels[share] or self._again[share]:
            return True
        # What is known by and by would be tried by and by.
        known = not self._wanted and self._taught[share] < len(self._teacher.lessons)
        return known and report.waiting > 0

    def _send(self, share: int, errand: int, budget: int = BUDGET) -> None:
        teacher, report = self._teacher, self._reports[share]
        words = tuple(teacher.lessons[self._taught[share] :])
        self._taught[share] = len(teacher.lessons)
        begin = None
        if report is None:
            by = sum(BY[name] for name in self._names)
            begin = Begin(share, self._crew.count, by, *teacher.start)
        mib = MOST_MIB
        spare = self._spare(self.progress().memory)
        if spare is not None:
            # Nobody knows what a process takes before it has said so.
            budget = budget if report is not None else 0
            mib = ((0 if report is None else report.taken) + max(0, spare) // self._crew.count) >> 20
        parcels, self._parcels[share] = self._parcels[share], []
        self._under_way[share] = parcels
        order = Order(budget, words, begin, errand, mib, self._again[share] or bool(words))
        self._again[share] = False
        self._crew.send(share, order, parcels)

    def _heard(self, share: int, report: Report, parcels: list[Any]) -> str:
        """Take a report; why the search has to end with it, or nothing."""
        self._reports[share] = report
        if report.refused:
            self._parcels[share][:0] = self._under_way[share][-report.refused :]
        self._under_way[share] = []
        for other, (count, parcel) in enumerate(zip(report.sent, parcels, strict=True)):
            if count:
                self._parcels[other].append(parcel)
        wanted = report.wanted
        self._wanted += questions(wanted, _LESSON)
        rule, state, option = report.broken
        if rule and self._broken is None:
            self._broken = share, state, option
        if self._broken is not None:
            return BROKEN
        if report.full:
            return MEMORY
        return STATES if self.progress().states > self._max_states else ""

    # --- what came out ---------------------------------------------------------------------------

    def _found(self, ended: str) -> Exhausted:
        progress = self.progress()
        states, steps = progress.states, progress.steps
        ends = sum(one.ends for one in self._reports if one is not None)
        # A way ends at the end of a run, or where it meets a state that another way has entered.
        found = Exhausted(max(0, ends + steps - states + 1), steps + self._steps, states)
        found.rounds, found.reductions = self._rounds, self._names
        found.stopped = "" if ended == BROKEN else ended
        return found

    def _violated(self, found: Exhausted, share: int, state: int, option: int) -> None:
        way = self._way_to(share, state)
        found.schedules += option != NOWHERE
        found.steps += option != NOWHERE
        found.violation, found.schedule = self._teacher.walk(way if option == NOWHERE else [*way, option])
        assert found.violation is not None
        found.rules = {found.violation.rule}

    def _way_to(self, share: int, state: int) -> list[int]:
        way: list[int] = []
        while True:
            share, state, option = self._crew.ask(share, "came_from", state)
            if state == NOWHERE:
                return way[::-1]
            way.append(option)

    def _finished(self, found: Exhausted) -> None:
        """All states have been met: do runs end from all of them?"""
        if self._teacher.has_cycles:
            found.stopped = self._on(LINK) or self._on(RETURN)
            if found.stopped:
                return
            ways = []
            for share, report in enumerate(self._reports):
                assert report is not None
                if report.ending < report.states:
                    found.endless += report.states - report.ending
                    ways.append(self._way_to(share, self._crew.ask(share, "first_endless")))
            if ways:
                found.endless_schedule = self._teacher.walk(min(ways, key=len))[1]
        found.complete = True

    # --- to be kept, and gone on with ------------------------------------------------------------

    def unfinished(self) -> Unfinished:
        """Where it was stopped. What is under way arrives first; it cannot go on if there is no room."""
        for share in self._all:
            if self._parcels[share]:
                self._crew.send(share, Order(0), self._parcels[share])
                self._under_way[share], self._parcels[share] = self._parcels[share], []
                self._await(share)
                self.can_go_on = self.can_go_on and not self._parcels[share]
        kept = [self._crew.ask(share, "kept")[0] for share in self._all]
        return Unfinished(self._rounds, self._steps, self._teacher.course, kept)

    def blocks(self) -> Iterator[bytes]:
        """What the teacher was asked; for each share states that wait, then tables and states, in pieces."""
        yield bytes(self._teacher.asked)
        for share in self._all:
            kept, waiting = self._crew.ask(share, "kept")
            yield waiting
            for table, first in _pieces_of_tables(kept):
                yield self._crew.ask(share, "kept_table", table, first)
            for first in range(0, kept.states, PIECE):
                yield self._crew.ask(share, "kept_states", first)

    def come_back(self, unfinished: Unfinished, blocks: Iterator[bytes]) -> str:
        """Be ready to `run` on from there; else why it had to stop. Forgetful if the programs are others."""
        why = self._teacher.repeat(next(blocks), unfinished.course, lambda: self._stop(self.progress()))
        if why:
            return why
        self._rounds, self._steps = unfinished.rounds, unfinished.steps
        crew = self._crew
        for share, kept in enumerate(unfinished.shares):
            waiting = next(blocks)
            # Before lessons, which add to tables.
            for table, _ in _pieces_of_tables(kept):
                crew.ask(share, "table_comes_back", table, next(blocks))
            self._send(share, SEARCH, 0)
            self._await(share)
            for _ in range(0, kept.states, PIECE):
                crew.ask(share, "comes_back", next(blocks))
            self._reports[share] = crew.ask(share, "goes_on_from", kept, waiting)
            self._again[share] = True
        return ""

    def _await(self, share: int) -> None:
        """Hear what this share has to report, the only one that has something to do."""
        while True:
            for one, report, parcels in self._crew.receive(patient=True):
                assert one == share
                self._heard(share, report, parcels)
                return


def _pieces_of_tables(kept: Kept) -> list[tuple[int, int]]:
    """Table and first word of each."""
    return [
        (table, first) for table, words in enumerate(kept.tables) for first in range(0, words, TABLE_PIECE)
    ]
