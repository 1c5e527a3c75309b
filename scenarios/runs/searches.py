"""The engine room of `migrc check`: search one machine, confirm, shorten and save what is found, judge it.

Runs are searched in ranges of fixed size, each with a fresh strategy, here as in worker processes: the same
seed finds the same witness however many workers there are, unless time runs out first.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from emulator.checks.violation import Violation
from emulator.explore.ddmin import shrink
from emulator.explore.exhaustive import exhaust, shortest
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import ScheduleProblem, format_schedule, replay
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Transition
from emulator.machine.litmus import LitmusMachine
from emulator.machine.referee import Referee
from scenarios.drawing.columns import draw
from scenarios.files.witness import Witness, save
from scenarios.runs.verdict import Job, Result, Settings, reason
from scenarios.subjects.subject import Subject, faults_in_one_line, program_problem
from scenarios.usage import UsageProblem

if TYPE_CHECKING:
    from actors.search_workers import SearchWorkers

EXHAUSTIVE: Final = "exhaustive"
RANGE: Final = 1000
FIRST: Final = 200
DETOURS: Final = 200
SHRINK_S: Final = 20.0
PORTFOLIO: Final = "portfolio"
MAX_STATES: Final = 20_000_000
PROOF_STATES: Final = 150_000
SHORTEST_SHARE: Final = 0.4

Look = Callable[[int], None]
"""Called every now and then with the schedules of the present result that are done."""


@dataclass(slots=True)
class _Found:
    """What a search adds up to; `reached` are the counters that some run counted."""

    schedules: int = 0
    steps: int = 0
    cut: int = 0
    complete: bool = False
    states: int | None = None
    saved: int | None = None
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()
    run: int = 0
    strategy: str = ""
    reached: set[str] = field(default_factory=set)
    endless: str = ""

    def add(self, tally: Any) -> None:
        """Add what a search of a range found."""
        self.schedules += tally.schedules
        self.steps += tally.steps
        self.cut += tally.cut
        if tally.violation is not None:
            self.violation, self.schedule = tally.violation, tally.schedule
            self.run, self.strategy = tally.run, tally.strategy


def open_machine(subject: Subject) -> LearnedMachine:
    """What a search runs on: worker processes call it too."""
    return LearnedMachine(subject.litmus_machine())


def run_job(job: Job, settings: Settings, workers: SearchWorkers | None, look: Look) -> Result:
    """Find out one result. UsageProblem for what a program of the test or the policy raises."""
    began = time.monotonic()
    if job.left_out:
        return Result(job, settings.strategy)
    machine = job.subject.litmus_machine()
    with faults_in_one_line(job.subject):
        explorer = LearnedMachine(machine)
        if settings.strategy == EXHAUSTIVE:
            found = _every(explorer, settings, look, settings.states or MAX_STATES)
        else:
            found = _search(job, explorer, settings, workers, look)
        elapsed_s = time.monotonic() - began
        result = Result(
            job,
            settings.strategy,
            schedules=found.schedules,
            steps=found.steps,
            cut=found.cut,
            states=found.states,
            saved=found.saved,
            complete=found.complete,
            elapsed_s=elapsed_s,
            unreached=tuple(name for name in job.reached if name not in found.reached),
            endless=found.endless,
        )
        if found.violation is not None:
            _witness(result, machine, explorer, found, settings)
    result.reason = reason(result)
    return result


def _deadline(settings: Settings) -> float:
    return float("inf") if settings.seconds is None else time.monotonic() + settings.seconds


def _search(
    job: Job, explorer: LearnedMachine, settings: Settings, workers: SearchWorkers | None, look: Look
) -> _Found:
    """Random runs. Under the portfolio, if the first few find nothing, every interleaving if they are few
    enough, and the rest of the runs only if they are not."""
    deadline = _deadline(settings)
    first = min(FIRST, settings.schedules) if settings.strategy == PORTFOLIO else 0
    found = _Found()
    if first:
        found = _here(explorer, settings, look, range(0, first, RANGE), deadline)
        if found.violation is not None or time.monotonic() > deadline:
            return found
        proof = _every(explorer, settings, look, settings.states or PROOF_STATES)
        if proof.complete or proof.violation is not None or proof.endless:
            proof.schedules += found.schedules
            proof.steps += found.steps
            proof.cut += found.cut
            return proof
    rest = range(first, settings.schedules, RANGE)
    if workers is not None:
        more = _spread(job, settings, workers, look, rest)
    else:
        more = _here(explorer, settings, look, rest, deadline)
    more.schedules += found.schedules
    more.steps += found.steps
    more.cut += found.cut
    more.reached |= found.reached
    return more


def _here(explorer: LearnedMachine, settings: Settings, look: Look, ranges: range, deadline: float) -> _Found:
    """Range after range in this process."""
    found = _Found()
    make_strategy = find_strategy(settings.strategy)
    done = 0

    def stop() -> bool:
        look(done)
        return time.monotonic() > deadline

    for first in ranges:
        limits = Limits(min(RANGE, ranges.stop - first), settings.steps)
        tally = search(explorer, make_strategy(), settings.seed, limits, stop, first)
        found.add(tally)
        done = found.schedules
        if tally.violation is not None or tally.schedules < limits.schedules:
            break
    found.reached = set(explorer.reached)
    return found


def _spread(job: Job, settings: Settings, workers: SearchWorkers, look: Look, ranges: range) -> _Found:
    """The same ranges, shared out among worker processes."""
    from actors.errors import ProgramError
    from actors.search_workers import Task

    found = _Found()
    opener = f"{__name__}:{open_machine.__name__}"
    task = Task(opener, (job.subject,), settings.strategy, settings.seed, settings.steps)
    try:
        for part in workers.ranges(task, ranges, settings.seconds, lambda: look(found.schedules)):
            found.add(part.tally)
            found.reached |= part.reached
    except ProgramError as problem:
        if problem.cpu < 0:
            what = f"{job.subject.what} under {job.subject.policy}"
            raise UsageProblem(f"{what}: in a worker: {problem.fault.message}") from None
        raise program_problem(job.subject, problem.cpu, problem.fault) from None
    return found


def _every(explorer: LearnedMachine, settings: Settings, look: Look, max_states: int) -> _Found:
    """Every interleaving, or as many as time and the number of states allow."""
    deadline = _deadline(settings)

    def stop() -> bool:
        look(0)
        return time.monotonic() > deadline

    tally = exhaust(explorer, stop, max_states)
    found = _Found(complete=tally.complete, states=tally.states, saved=tally.saved)
    found.reached = set(explorer.reached)
    if tally.endless:
        # What never ends has not been judged at its end.
        found.complete = False
        found.endless = (
            f"{tally.endless} states from which no run ends, such as the one after the schedule "
            f"{format_schedule(tally.endless_schedule)!r}"
        )
    found.add(tally)
    return found


def _witness(
    result: Result, machine: LitmusMachine, explorer: LearnedMachine, found: _Found, settings: Settings
) -> None:
    """Confirm what was found, shorten it, save it."""
    assert found.violation is not None
    job = result.job
    rule = found.violation.rule
    confirmed(job.subject, machine, found.schedule, rule)
    deadline = time.monotonic() + min(SHRINK_S, settings.seconds or SHRINK_S)
    few = int(SHORTEST_SHARE * min(PROOF_STATES, settings.states or PROOF_STATES))
    try:
        # Where there are few states, a search by breadth finds the shortest there is.
        short = shortest(explorer, rule, lambda: time.monotonic() > deadline, few)
        if short is None:
            short = shrink(explorer, found.schedule, rule, lambda: time.monotonic() > deadline, DETOURS)
    except (AssertionError, ScheduleProblem) as problem:
        raise not_deterministic(job.subject, rule, f"when shortened: {problem}") from None
    schedule, violation = confirmed(job.subject, machine, short, rule)
    result.witness = Witness.of(
        job.subject, format_schedule(schedule), violation, settings.seed, found.strategy, found.run
    )
    result.drawing = draw(machine, schedule).broken(rule, violation.cpu)
    result.file = settings.folder / result.witness.name()
    save(result.witness, result.file)


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
        f"{subject.what} under {subject.policy} on {subject.arch} is not deterministic: the search broke "
        f"{rule!r}, {instead}; nothing but operations may decide what a program does"
    )


def results(
    jobs: Sequence[Job],
    settings: Settings,
    workers: SearchWorkers | None,
    look: Callable[[Job, int], None],
) -> Iterator[Result]:
    """Every job's result, in order; what is wrong with one of them is its result."""
    gc.freeze()
    try:
        for job in jobs:

            def look_at(done: int, job: Job = job) -> None:
                look(job, done)

            try:
                yield run_job(job, settings, workers, look_at)
            except UsageProblem as problem:
                yield Result(job, settings.strategy, error=problem.message)
            # The states that this search has learnt refer to each other: none goes by itself.
            gc.collect()
    finally:
        gc.unfreeze()
