"""The engine room of `migrc check`: search one machine, confirm, shorten and save what is found, judge it.

Runs are searched in ranges of fixed size, each with a fresh strategy, here as in worker processes: the same
seed finds the same witness however many workers there are, unless time runs out first.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from emulator.checks.violation import Violation
from emulator.explore.compiled.runs import search
from emulator.explore.ddmin import shrink
from emulator.explore.exhaustive import Exhausted, shortest
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import ScheduleProblem, format_schedule, replay
from emulator.explore.scripts import Programs
from emulator.explore.search import Limits
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Transition
from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.garbage import rare_collection
from emulator.machine.litmus import LitmusMachine
from emulator.machine.referee import Referee
from scenarios.drawing.columns import draw
from scenarios.files.witness import Witness, save
from scenarios.runs.proofs import TIME, Watch, alone, prove
from scenarios.runs.suggestions import instead_counted, never_called
from scenarios.runs.verdict import Job, Result, Settings, reason
from scenarios.subjects.subject import Subject, faults_in_one_line, program_problem
from scenarios.usage import HostProblem, UsageProblem

if TYPE_CHECKING:
    from actors.search_workers import SearchWorkers

EXHAUSTIVE: Final = "exhaustive"
RANGE: Final = 1000
FIRST: Final = 64
DETOURS: Final = 200
SHRINK_S: Final = 20.0
PORTFOLIO: Final = "portfolio"
PROOF_STATES: Final = 3_000_000
SHORTEST_STATES: Final = 60_000

_FEW_ROUNDS: Final = 5  # of the collector, each 100,000 objects that have come and not gone

OPINION_SHARE: Final = 0.1
OPINION_RUNS: Final = 5

Look = Callable[[int, str], None]
"""Called every now and then with the schedules of the present result that are done, and how far it is."""

Stop = Callable[[], bool]
"""Looks, and says whether time is up."""


class Disagreement(Exception):
    """What was called a proof is none: a reduction or a fast path has a mistake. Ours, not the user's."""


def open_machine(subject: Subject) -> LearnedMachine:
    """What a search runs on: worker processes call it too."""
    return LearnedMachine(subject.litmus_machine())


class Known:
    """What is known of the programs of the test and policy that were looked at last: on another architecture
    they do the same. `beyond`: the first one on which there were more states than a proof may take."""

    def __init__(self) -> None:
        self._programs: Programs | None = None
        self.beyond = ""

    def programs(self, machine: LitmusMachine) -> Programs:
        """Those of this machine."""
        if self._programs is None or not self._programs.run_on(machine):
            self.forget()
            self._programs = Programs(machine)
        return self._programs

    def forget(self) -> None:
        """Give back what is known."""
        if self._programs is not None:
            self._programs.forget()
            self._programs = None
        self.beyond = ""

    def most_states(self, arch: str, settings: Settings) -> int | None:
        """Of a proof: few where an architecture that reorders less has had too many already."""
        order = list(ARCHITECTURES)
        hopeless = self.beyond and order.index(self.beyond) < order.index(arch)
        return settings.states_beyond if hopeless and settings.states_beyond else settings.states


def run_job(
    job: Job, settings: Settings, workers: SearchWorkers | None, look: Look, known: Known | None = None
) -> Result:
    """Find out one result. UsageProblem for what a program of the test or the policy raises."""
    result = Result(job, settings.strategy)
    if job.left_out:
        return result
    began = time.monotonic()
    deadline = began + (settings.seconds or float("inf"))

    def stop() -> bool:
        look(result.schedules, "")
        return time.monotonic() > deadline

    machine = job.subject.litmus_machine()
    with faults_in_one_line(job.subject), ExitStack() as stack:
        if known is None:
            known = Known()
            stack.callback(known.forget)
        programs = known.programs(machine)
        settings = replace(settings, states=known.most_states(job.subject.arch, settings))
        explorer = stack.enter_context(closing(LearnedMachine(machine, programs=programs)))
        if settings.strategy == EXHAUSTIVE:
            _prove(result, explorer, settings, look)
        else:
            _search(result, explorer, settings, workers, stop)
        if result.seen > (settings.states or PROOF_STATES) and not known.beyond:
            known.beyond = job.subject.arch
        reached = explorer.reached | result.reached
        result.unreached = tuple(name for name in job.reached if name not in reached)
        result.counted = instead_counted(result.unreached, reached)
        result.elapsed_s = time.monotonic() - began
        if result.complete and result.violation is None:
            _second_opinion(result, machine, settings, OPINION_SHARE * result.elapsed_s)
        if result.violation is not None:
            _witness(result, result.violation.rule, machine, explorer, settings)
    if workers is None and settings.workers == 1:
        result.uncalled = never_called(job.subject.policy)
    result.reason = reason(result)
    return result


def _search(
    result: Result, explorer: LearnedMachine, settings: Settings, workers: SearchWorkers | None, stop: Stop
) -> None:
    """Random runs. Under the portfolio, if the first few find nothing, every interleaving if they are few
    enough, and the rest of the runs only if they are not."""
    first = min(FIRST, settings.schedules) if settings.strategy == PORTFOLIO else 0
    if first:
        _here(result, explorer, settings, stop, range(0, first, RANGE))
        if result.violation is not None or stop() or _every(result, explorer, settings, stop):
            return
    rest = range(first, settings.schedules, RANGE)
    if workers is not None:
        _spread(result, settings, workers, stop, rest)
    else:
        _here(result, explorer, settings, stop, rest)


def _here(result: Result, explorer: LearnedMachine, settings: Settings, stop: Stop, ranges: range) -> None:
    """Range after range in this process."""
    make_strategy = find_strategy(settings.strategy)
    for first in ranges:
        limits = Limits(min(RANGE, ranges.stop - first), settings.steps)
        tally = search(explorer, make_strategy(), settings.seed, limits, stop, first)
        result.add(tally)
        if tally.violation is not None or tally.schedules < limits.schedules:
            break


def _spread(result: Result, settings: Settings, workers: SearchWorkers, stop: Stop, ranges: range) -> None:
    """The same ranges, shared out among worker processes."""
    from actors.errors import ProgramError
    from actors.search_workers import Task

    subject = result.job.subject
    opener = f"{__name__}:{open_machine.__name__}"
    task = Task(opener, (subject,), settings.strategy, settings.seed, settings.steps)
    try:
        for part in workers.ranges(task, ranges, settings.seconds, stop):
            result.add(part.tally)
            result.reached |= part.reached
    except ProgramError as problem:
        if problem.cpu < 0:
            raise UsageProblem(f"{subject}: in a worker: {problem.fault.message}") from None
        raise program_problem(subject, problem.cpu, problem.fault) from None


def _every(result: Result, explorer: LearnedMachine, settings: Settings, stop: Stop) -> bool:
    """Every interleaving, within the portfolio: whether as many as it takes on are an answer."""
    watch = Watch(explorer, settings.memory, lambda: TIME if stop() else "", lambda text: None)
    tally = alone(explorer, watch, settings.states or PROOF_STATES)
    answered = tally.complete or tally.violation is not None or tally.endless > 0
    if answered:
        _take(result, tally)
    result.seen, result.reductions = tally.states, tally.reductions
    return answered


def _prove(result: Result, explorer: LearnedMachine, settings: Settings, look: Look) -> None:
    """Every interleaving, whatever comes of it."""
    tally = prove(result.job.subject, explorer, settings, lambda text: look(0, text))
    _take(result, tally)
    result.seen, result.reductions, result.stopped = tally.states, tally.reductions, tally.stopped
    result.lost = tally.lost
    if tally.stopped and settings.resume is not None and settings.resume.exists():
        result.kept = settings.resume


def _take(result: Result, tally: Exhausted) -> None:
    result.add(tally)
    result.states, result.saved = tally.states, tally.saved
    # What never ends has not been judged at its end.
    result.complete = tally.complete and not tally.endless
    if tally.endless:
        result.endless = (
            f"{tally.endless} states from which no run ends, such as the one after the schedule "
            f"{format_schedule(tally.endless_schedule)!r}"
        )


def _second_opinion(result: Result, machine: LitmusMachine, settings: Settings, seconds: float) -> None:
    """Runs of the plain engine after a proof, for that long. Disagreement if a rule breaks in one of them."""
    deadline = time.monotonic() + seconds
    referee, strategy = Referee(machine), find_strategy("random")()
    for first in range(0, settings.schedules, OPINION_RUNS):
        limits = Limits(OPINION_RUNS, settings.steps)
        tally = search(referee, strategy, settings.seed, limits, lambda: False, first)
        if tally.violation is not None:
            raise Disagreement(
                f"internal error: {result.job.subject.title()}: no rule breaks in {result.states:,} states, "
                f"but {tally.violation.rule!r} does on the plain engine, schedule "
                f"{format_schedule(tally.schedule)!r}; the plain engine is right; if programs and policy "
                "keep nothing where no search sees it (in a library, in the process), please report this"
            )
        if time.monotonic() > deadline:
            return


def _witness(
    result: Result, rule: str, machine: LitmusMachine, explorer: LearnedMachine, settings: Settings
) -> None:
    """Confirm what was found, shorten it, save it."""
    subject = result.job.subject
    confirmed(subject, machine, result.schedule, rule)
    deadline = time.monotonic() + min(SHRINK_S, settings.seconds or SHRINK_S)
    few = min(SHORTEST_STATES, settings.states or SHORTEST_STATES)
    try:
        # Where there are few states, a search by breadth finds the shortest there is.
        short = shortest(explorer, rule, lambda: time.monotonic() > deadline, few)
        if short is None:
            short = shrink(explorer, result.schedule, rule, lambda: time.monotonic() > deadline, DETOURS)
    except (AssertionError, ScheduleProblem) as problem:
        raise not_deterministic(subject, rule, f"when shortened: {problem}") from None
    schedule, violation = confirmed(subject, machine, short, rule)
    result.witness = Witness.of(
        subject, format_schedule(schedule), violation, settings.seed, result.found_by, result.run
    )
    result.drawing = draw(machine, schedule).broken(rule, violation.cpu)
    file = settings.folder / result.witness.name()
    try:
        save(result.witness, file)
        result.file = file
    except UsageProblem as problem:
        # A verdict does not depend on a disk.
        result.unsaved = problem.message


def confirmed(
    subject: Subject, machine: LitmusMachine, schedule: Sequence[Transition], rule: str
) -> tuple[tuple[Transition, ...], Violation]:
    """What the plain engine makes of a schedule that broke `rule`: where it ended, and how it broke.

    UsageProblem if it does not break that rule: then something in the test or the policy is chance.
    """
    explorer = Referee(machine)
    try:
        violation = replay(explorer, schedule)
        saw = "nothing broken" if violation is None else repr(violation.rule)
    except ScheduleProblem as problem:
        violation, saw = None, str(problem)
    if violation is None or violation.rule != rule:
        raise not_deterministic(subject, rule, f"when replayed: {saw}")
    return tuple(explorer.path), violation


def not_deterministic(subject: Subject, rule: str, instead: str) -> UsageProblem:
    """One and the same schedule did not do the same twice."""
    return UsageProblem(
        f"{subject} on {subject.arch} is not deterministic: the search broke "
        f"{rule!r}, {instead}; nothing but operations may decide what a program does"
    )


def results(
    jobs: Sequence[Job],
    settings: Settings,
    workers: SearchWorkers | None,
    look: Callable[[Job, int, str], None],
) -> Iterator[Result]:
    """Every job's result, in order; what is wrong with one of them is its result."""
    known = Known()
    gc.freeze()
    try:
        with rare_collection():
            for job in jobs:
                try:
                    yield run_job(job, settings, workers, partial(look, job), known)
                except HostProblem:
                    raise
                except (UsageProblem, Disagreement) as problem:
                    known.forget()
                    ours = isinstance(problem, Disagreement)
                    yield Result(job, settings.strategy, error=str(problem), ours=ours)
                # The states that a search has learnt refer to each other: what is left of many does not go
                # by itself. Little is left of one, and to look for it takes as long as a proof.
                if gc.get_count()[1] > _FEW_ROUNDS:
                    gc.collect()
    finally:
        known.forget()
        gc.unfreeze()
