"""The engine room of `migrc stress`: run after run on live actors, each disturbed differently, and a tally.

Every run is watched and recorded. What breaks a rule stays as a recording, the first of each rule and target;
the rest is counted and forgotten. Nothing here prints.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from actors.address import Placement
from actors.errors import LostActor, ProgramError, SessionError
from actors.mode import Chaos, Mode
from actors.recorder import KINDS
from actors.session import LiveResult, LiveSession
from scenarios.files.keeper import Keeper
from scenarios.runs.live import pass_on
from scenarios.runs.swarm import Pace, draw_chaos
from scenarios.runs.tally import Finding, Outcome, Tally, Target
from scenarios.runs.tally_file import TallyFile
from scenarios.subjects.subject import Subject
from scenarios.subjects.workload_machine import ScenarioMachine
from scenarios.usage import HostProblem

MOST_TRANSITIONS: Final = 20_000
"""Of a litmus test's run; what takes longer is taken to have no end. Tests take a few hundred."""

_MOST_PER_ACCESS: Final = 20
_PATIENCE_S: Final = 20.0
_MOST_LOST: Final = 3  # one after the other

Look = Callable[["Tally"], None]
"""Called after every run with the tally of what has been run."""


def target(subject: Subject) -> Target:
    """A litmus test or a workload that actors can run. UsageProblem if it cannot be set up."""
    machine = subject.machine()
    pass_on(subject)
    subject = replace(subject, cpus=machine.cpus)
    most = MOST_TRANSITIONS
    if isinstance(machine, ScenarioMachine):
        most += _MOST_PER_ACCESS * machine.user.expected_accesses()
    return Target(subject, machine, most)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and how much disturbed. Runs are shared among the targets in turn; None is no bound."""

    seed: int
    level: int
    runs: int | None
    seconds: float | None

    def fulfilled(self, outcome: Outcome) -> bool:
        """So many runs have been tried, or so long."""
        tried = outcome.count("runs") + outcome.count("lost") + sum(one.over for one in outcome.tallies)
        done = self.runs is not None and tried >= self.runs
        late = self.seconds is not None and outcome.elapsed_s >= self.seconds
        return done or late or all(one.over for one in outcome.tallies)


def stress(
    targets: Sequence[Target],
    plan: Plan,
    address: str | None,
    look: Look,
    session: LiveSession | None = None,
    outcome: Outcome | None = None,
    resume: Path | None = None,
    placement: Placement = "spread",
) -> Outcome:
    """Run all targets in turn until the plan is fulfilled; `session` if there is one already.

    `outcome` grows with every run, so that whatever ends this early, what is through is there. `resume`: the
    file that it is kept in as well, and gone on from. HostProblem if no session can be had, or if actors are
    lost again and again.
    """
    outcome = Outcome() if outcome is None else outcome
    outcome.tallies = [Tally(target) for target in targets]
    paces = [Pace(target.machine.cpus) for target in targets]
    with ExitStack() as held:
        file = None
        if resume is not None:
            file = held.enter_context(closing(TallyFile(resume, targets, plan.seed, plan.level)))
            file.load(outcome, paces)
            file.save(outcome, paces, True)
        before = outcome.elapsed_s
        if plan.fulfilled(outcome):
            return outcome
        try:
            with (
                LiveSession(address, placement=placement) if session is None else nullcontext(session) as live
            ):
                began = time.monotonic()

                def keep(at_once: bool) -> None:
                    outcome.elapsed_s = before + time.monotonic() - began
                    if file is not None:
                        file.save(outcome, paces, at_once)

                try:
                    _stress(live, plan, outcome, paces, look, keep)
                finally:
                    keep(True)
        except SessionError as problem:
            raise HostProblem(str(problem)) from None
    return outcome


def _stress(
    session: LiveSession,
    plan: Plan,
    outcome: Outcome,
    paces: list[Pace],
    look: Look,
    keep: Callable[[bool], None],
) -> None:
    """`keep(False)` is called after every turn."""
    both = [one for one in zip(outcome.tallies, paces, strict=True) if not one[0].over]
    # Who has had fewer turns is next.
    turns = deque(sorted(both, key=lambda one: one[0].runs + one[0].lost))
    lost = 0
    while True:
        keep(False)
        if plan.fulfilled(outcome):
            return
        tally, pace = turns.popleft()
        chaos = draw_chaos(plan.seed, tally.runs, plan.level, pace)
        try:
            result = one_run(session, tally, pace, chaos, plan.seed)
        except ProgramError as problem:
            outcome.problems.append(f"{tally.target.subject.title()}: {problem}")
            tally.over = True
            continue
        except LostActor:
            lost += 1
            tally.lost += 1
            if lost == _MOST_LOST:
                raise
            turns.append((tally, pace))
            look(tally)
            continue
        lost = 0
        turns.append((tally, pace))
        outcome.add_latencies(tally.target.subject.policy, result)
        look(tally)


def one_run(session: LiveSession, tally: Tally, pace: Pace, chaos: Chaos, seed: int) -> LiveResult:
    """Run the tally's target once under these disturbances and count what comes out."""
    target = tally.target
    steps = [0] * target.machine.cpus
    with Keeper.of(target.subject.header(chaos), None, lambda text: None) as keeper:

        def keep(events: tuple[int, ...], checksum: int) -> None:
            for index in range(0, len(events), 3):
                steps[events[index] // KINDS] += events[index + 2]
            keeper.keep(events, checksum)

        mode = Mode(watched=True, recorded=True, chaos=chaos, most=target.most)
        result = session.run(target.machine, patience_s=_PATIENCE_S, mode=mode, keep=keep)
        counts = target.subject.heed.counts
        result = replace(result, violations=[one for one in result.violations if counts(one.rule)])
        run = tally.runs
        new = tally.add(result)
        keeper.end(result, target.subject.file_name(f"seed{seed}", f"run{run}"), bool(new))
    if not result.cut:
        pace.add(steps, result.memory["contested"])
    texts = {one.rule: one.text for one in reversed(result.violations)}
    tally.findings += [Finding(rule, run, texts[rule], keeper.path) for rule in texts if rule in new]
    return result
