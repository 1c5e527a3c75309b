"""What a check is to find out, what it found, and whether that is what the test expects.

A job is a litmus test to look at and what is expected of it. Where a test says nothing of a policy, a broken
rule is bad news all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, get_args

from emulator.checks.heed import ALL, Heed
from emulator.checks.violation import Violation
from emulator.explore.exhaustive import Exhausted
from emulator.explore.search import Tally
from emulator.hardware.cpu import Transition
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.policy import Policy
from emulator.kernel.versions import DEFAULT
from emulator.machine.litmus import Expectation, Litmus, Observation
from emulator.machine.progress import LIVELOCK
from emulator.policies.catalogue import POLICIES, canonical
from scenarios.drawing.columns import Drawing
from scenarios.files.witness import Witness
from scenarios.history.bug import Bug
from scenarios.runs.harm import Harm
from scenarios.subjects.mmus import mmu_class, mmu_on
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.programs import LitmusName, find_named
from scenarios.subjects.rules import check_rules, heed_of, looked
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

MAINLINE: Final = "immediate"
_OF_AN_MMU: Final = ("nr_tlb_", "tlb_flush_")
OBSERVATIONS: Final[tuple[Observation, ...]] = get_args(Observation)


@dataclass(frozen=True, slots=True)
class Job:
    """One result to find out, and what is expected of it (None: nobody said).

    `like`: it is expected of this policy, and so of one that says to be like it. `left_out` says why there is
    nothing to find out. `bug`: the bug of the history that it is about. `instead_of`: the mmu that it is
    expected with, where that is another one; counters of the mmu's own need not be reached then. `narrowed`:
    a person looks at some of the rules only.
    """

    subject: Subject
    expected: Observation | None
    reached: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    like: str = ""
    left_out: str = ""
    bug: str = ""
    instead_of: str = ""
    narrowed: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How to search, and where to save what is found. `seconds` limits each result.

    `states` limits each search of every interleaving; None: what the strategy is worth. `states_beyond` does
    where the same test and policy had more than `states` on an architecture that reorders less. `memory` is
    in bytes.
    `workers` share out an exhaustive search, on the Ray cluster at `address` if that is given; what is not
    finished is kept in the file `resume` and gone on with from there.
    """

    strategy: str = "portfolio"
    schedules: int = 5_000
    steps: int = 10_000
    seconds: float | None = None
    seed: int = 0
    folder: Path = Path("witnesses")
    states: int | None = None
    states_beyond: int | None = None
    memory: int | None = None
    workers: int = 1
    address: str | None = None
    resume: Path | None = None


@dataclass(slots=True)
class Result:
    """What came out of one job. `reason` says why it is not `ok`, empty if it is; `error` what ended it,
    and whether that was `ours`: a mistake of the search. `unsaved`: why there is no `file` of the witness.

    `counted` says what runs counted that was meant by `unreached`, perhaps; `uncalled` which methods of the
    policy were never called, and where the kernel would.

    `violation` was found in run number `run` by `found_by`, at the end of `schedule`; a witness is made of
    that, and `harm` is what it leads to, if that was asked. `reached`: the counters that runs in other
    processes counted. `seen` states had the search of every interleaving entered, with these `reductions`,
    whether or not that was an answer; `stopped` says why it was none (`lost`: a worker is no more), and what
    there is of it is `kept` in a file.
    """

    job: Job
    strategy: str
    schedules: int = 0
    steps: int = 0
    cut: int = 0
    states: int | None = None
    saved: int | None = None
    complete: bool = False
    seen: int = 0
    stopped: str = ""
    lost: bool = False
    kept: Path | None = None
    reductions: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    unreached: tuple[str, ...] = ()
    counted: str = ""
    uncalled: str = ""
    endless: str = ""
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()
    run: int = 0
    found_by: str = ""
    reached: set[str] = field(default_factory=set)
    witness: Witness | None = None
    file: Path | None = None
    drawing: Drawing | None = None
    harm: Harm | None = None
    reason: str = ""
    error: str = ""
    ours: bool = False
    unsaved: str = ""

    def add(self, tally: Tally | Exhausted) -> None:
        self.schedules += tally.schedules
        self.steps += tally.steps
        self.cut += tally.cut
        if tally.violation is not None:
            self.violation, self.schedule = tally.violation, tally.schedule
            self.run, self.found_by = tally.run, tally.strategy

    @property
    def observation(self) -> Observation:
        """Whether a rule was seen to break."""
        return "Never" if self.witness is None else "Sometimes"

    @property
    def ok(self) -> bool:
        """The verdict is the expected one."""
        return not self.reason and not self.error

    @property
    def unproved(self) -> bool:
        """No rule was seen to break, and not every interleaving was searched."""
        return self.observation == "Never" and not self.complete and not self.error and not self.job.left_out

    @property
    def says_nothing(self) -> bool:
        """Nobody said what to expect, so that no rule broke is no praise."""
        return self.ok and self.job.expected is None and not self.job.left_out


def plan(
    tests: Sequence[LitmusName],
    policies: Sequence[str],
    archs: Sequence[str],
    heed: Heed = ALL,
    mmu: str | None = None,
) -> list[Job]:
    """The jobs for these tests: of all that a test has expectations of, unless they are given.

    With another `mmu` than a test's own, what is expected of its own counts.
    """
    jobs = []
    for test in tests:
        litmus = find_named(test)
        check_rules(test)
        ours = heed_of(test, heed)
        expected = {canonical(one.policy): one for one in reversed(litmus.expected)}
        names = list(policies) or list(dict.fromkeys(one.policy for one in litmus.expected))
        if not names:
            raise UsageProblem(f"{test}: it expects nothing of any policy; say which with --policy")
        # What a test has reached under anybody says what there would have been to reach.
        anything = tuple(dict.fromkeys(name for one in litmus.expected for name in one.reached))
        for policy in names:
            made = policy_factory(policy)()
            like = "" if canonical(policy) in expected else stands_for(made, expected)
            nothing = Expectation(policy, None, None, None, anything)
            expectation = expected.get(canonical(like or policy), nothing)
            left_out = ""
            if not isinstance(made, litmus.only):
                left_out = f"asks about {litmus.only.__name__} and what is derived from it only"
            elif ours and not looked(ours, test, made.luf_debug).at:
                left_out = "judges none of the rules that count"
            elif test.kernel and (own := dict(litmus.settings).get("version", test.kernel)) != test.kernel:
                left_out = f"is about Linux {own} (its setting version), not {test.kernel}"
            jobs += [
                replace(
                    _job(
                        Subject(
                            test, policy, arch, litmus.cpus, heed=ours, mmu=mmu_on(arch, mmu, litmus.mmu)
                        ),
                        expectation,
                        like,
                        left_out or _elsewhere(expectation, arch),
                        litmus.mmu if mmu_on(arch, mmu, litmus.mmu) != litmus.mmu else "",
                    ),
                    narrowed=bool(heed),
                )
                for arch in _archs(archs, expectation, litmus)
            ]
    return jobs


def plan_of_history(
    bugs: Sequence[Bug], archs: Sequence[str], heed: Heed = ALL, kernel: str = ""
) -> list[Job]:
    """The jobs for these bugs: each test with the fix and without, on the architectures that have the bug.

    `kernel`: the version of Linux, if not the default one; tests of another one are left out, and bugs that
    it cannot have.

    UsageProblem for one that cannot be checked, and where none is on these architectures.
    """
    jobs: list[Job] = []
    elsewhere: dict[str, list[str]] = {}
    for bug in bugs:
        if problem := bug.problem():
            raise UsageProblem(f"--history {bug.name}: {problem}")
        before = bug.expectation(bug.before)
        assert before is not None, "a bug with a problem has been told"
        had = [arch for arch in ARCHITECTURES if getattr(before, arch) is not None]
        wanted = [arch for arch in ARCHITECTURES if arch in (archs or had) and before.on(arch) is not None]
        if wanted:
            planned = plan([LitmusName(bug.test.name, kernel=kernel)], [bug.fixed, bug.before], wanted, heed)
            older = bug.not_in(kernel or DEFAULT)
            jobs += [replace(job, bug=bug.name, left_out=job.left_out or older) for job in planned]
        elsewhere[bug.name] = had
    if bugs and not jobs:
        name, had = next(iter(elsewhere.items()))
        raise UsageProblem(f"--history {name}: not on {', '.join(archs)}; on {', '.join(had)}")
    return jobs


def stands_for(made: Policy, expected: Collection[str]) -> str:
    """The shipped policy whose expectations count where a test says nothing of a policy; empty if none.

    It is the one that the policy says to be like, else the nearest that it is derived from; where the test
    says nothing of that one either, what that one is derived from, and mainline at last.
    """
    shipped = {type(make()): canonical(name) for name, make in POLICIES.items()}
    kind = type(POLICIES[made.like]() if made.like else made)
    known = [shipped[one] for one in kind.__mro__ if one in shipped]
    if not known:
        return ""
    return next((name for name in (*known, MAINLINE) if name in expected), known[0])


def _archs(archs: Sequence[str], expectation: Expectation, litmus: Litmus) -> list[str]:
    """Those given, or those that something is expected on; if that is nowhere, those of the test's mmu."""
    expected = [arch for arch in ARCHITECTURES if getattr(expectation, arch) is not None]
    return list(archs) or expected or list(mmu_class(litmus.mmu).archs)


def _elsewhere(expectation: Expectation, arch: str) -> str:
    """Why a test is left out on this architecture: it is about others; empty if it is not."""
    known = [one for one in ARCHITECTURES if expectation.on(one) is not None]
    return "" if not known or arch in known else f"is about {', '.join(known)} only, not {arch}"


def _job(subject: Subject, expectation: Expectation, like: str, left_out: str, instead_of: str) -> Job:
    expected = expectation.on(subject.arch)
    if expected is not None and expected not in OBSERVATIONS:
        raise UsageProblem(
            f"{subject.test}: expects {expected!r} of {subject.policy} on {subject.arch}; "
            f"{' or '.join(OBSERVATIONS)}"
        )
    reached = expectation.reached
    if instead_of:
        reached = tuple([one for one in reached if not one.startswith(_OF_AN_MMU)])
    return Job(subject, expected, reached, expectation.rules, like, left_out, instead_of=instead_of)


def reason(result: Result) -> str:
    """Why the verdict is not the expected one; empty if it is."""
    job = result.job
    like = f", as of {job.like}" if job.like else ""
    if result.witness is not None:
        rule = result.witness.rule
        if job.expected is None:
            return f"a rule broke; the test expects nothing of {job.subject.policy} on {job.subject.how}"
        if job.expected == "Never":
            return f"expected Never{like}"
        if job.rules and rule not in job.rules:
            return f"broke {rule!r}; expected {' or '.join(repr(one) for one in job.rules)}{like}"
        return ""
    if result.endless:
        return f"{LIVELOCK}: {result.endless}"
    if not result.schedules:
        return "vacuous: no run came to its end; raise --seconds, or --states of an exhaustive search"
    # A policy that does not share the fault of the one that it is like is none the worse for it, and behind
    # what does not count there need not be anything.
    if job.expected == "Sometimes" and not job.like and not job.instead_of and not job.narrowed:
        return f"expected Sometimes{result.uncalled}"
    if result.unreached and job.expected is not None:
        return f"vacuous: no run counted {', '.join(result.unreached)}{like}{result.counted}"
    if result.cut == result.schedules:
        return "vacuous: every run was cut short; raise --steps"
    if not result.steps:
        return "vacuous: no program does anything"
    return ""
