"""What the verbs do, for programs and notebooks: `from scenarios import api`.

    result = api.run("tiering", policies=["immediate", "migrc:v9"])
    result.to_pandas()[["policy", "nr_tlb_remote_flush"]]

Results are plain: `document` is what `--json` prints, `rows()` one flat dict for each run or verdict, and as
text they are the report. What is wrong with an argument is a `Problem`, in one line. Timed runs and checks
start no process; live runs start Ray.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from emulator.explore.strategies import UnknownStrategy, find_strategy
from emulator.hardware.ordering import ARCHITECTURES
from emulator.policies.catalogue import canonical
from scenarios.events.event import Event
from scenarios.events.event_file import read
from scenarios.report import verdicts
from scenarios.report.comparison import print_report
from scenarios.report.conclusion import conclusion
from scenarios.report.points import print_sweep
from scenarios.runs.document import Document, Pictures, Run, document_of
from scenarios.runs.grid import Axis, ResultFile, Sweep, SweepDocument, parse_axes, run_point
from scenarios.runs.searches import EXHAUSTIVE, results
from scenarios.runs.verdict import Result, Settings, plan, plan_of_history
from scenarios.subjects.mmus import DEFAULT_MMU, mmu_class, mmu_on
from scenarios.subjects.named import bugs_named, tests_named
from scenarios.subjects.policies import policy_factory
from scenarios.subjects.rules import heed
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem as Problem
from scenarios.usage import did_you_mean
from scenarios.workloads.settings import MAX_CPUS, MAX_SEED, MAX_TIMED_CPUS
from scenarios.workloads.workload_file import load_workload

if TYPE_CHECKING:
    import pandas

__all__ = ["CheckResult", "Problem", "RunResult", "SweepResult", "check", "run", "sweep"]

_POLICIES: Final = ("immediate", "migrc")
_WIDTH: Final = 100


class _Shown:
    """A result: flat rows, a table, and the report as text."""

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each run or verdict; numbers are numbers."""
        raise NotImplementedError

    def to_pandas(self) -> pandas.DataFrame:
        """`rows()` as a DataFrame. Problem if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise Problem("pandas is not installed; pip install 'migrc-emulator[pandas]'") from None
        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True, repr=False)
class RunResult(_Shown):
    """One workload under several policies: `document` as of `migrc run --json`, `histograms` in ns by policy
    and by what was measured."""

    document: Document
    histograms: Pictures

    def __getitem__(self, policy: str) -> Run:
        """One policy's run. KeyError if it did not run."""
        for one in self.document["runs"]:
            if one["policy"] == policy:
                return one
        raise KeyError(policy)

    def rows(self) -> list[dict[str, Any]]:
        """One for each policy: what it was run on, figures, counters."""
        about = ("scenario", "engine", "kernel", "arch", "mmu", "cpus", "seed")
        head = {key: value for key, value in self.document.items() if key in about}
        return [head | _row(one) for one in self.document["runs"]]

    def events(self, policy: str) -> Iterator[Event]:
        """What happened, where the run kept it. Problem if it did not."""
        file = self[policy].get("events")
        if file is None:
            raise Problem("this run kept no events; run(..., events=FILE)")
        return read(Path(file))[1]

    def __str__(self) -> str:
        text = io.StringIO()
        print_report(self.document, self.histograms, text)
        return text.getvalue()


@dataclass(frozen=True, repr=False)
class CheckResult(_Shown):
    """Litmus tests and their verdicts, as of `migrc check`."""

    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Every verdict is the expected one."""
        return all(one.ok for one in self.results)

    @property
    def document(self) -> dict[str, Any]:
        return {"results": [verdicts.as_json(one) for one in self.results]}

    def rows(self) -> list[dict[str, Any]]:
        """One for each test, policy and architecture."""
        kept = [
            *("litmus", "policy", "arch", "mmu", "kernel", "expected", "observation", "ok", "reason"),
            *("schedules", "steps", "elapsed_s", "error", "left_out"),
        ]
        return [
            {name: one[name] for name in kept}
            | {"proved": one["proof"]["proved"], "states": one["proof"]["states"]}
            | {"rule": one["witness"] and one["witness"]["rule"]}
            for one in self.document["results"]
        ]

    def __str__(self) -> str:
        lines = [line for one in self.results for line in verdicts.in_words(one, not one.ok, _WIDTH)]
        return "\n".join([*lines, verdicts.summary(self.results, len(self.results))])


@dataclass(frozen=True, repr=False)
class SweepResult(_Shown):
    """Timed runs over a grid: `document` as of `migrc sweep --json`."""

    document: SweepDocument

    def rows(self) -> list[dict[str, Any]]:
        """One for each point and policy; what varies is a column."""
        return [_numbers(point["values"]) | _row(point["run"]) for point in self.document["points"]]

    def __str__(self) -> str:
        text = io.StringIO()
        print_sweep(self.document, text)
        return text.getvalue()


def run(
    scenario: str,
    *,
    policies: Sequence[str] = _POLICIES,
    engine: Literal["timed", "live"] = "timed",
    cpus: int = 4,
    seed: int = 0,
    arch: str = "x86",
    mmu: str = DEFAULT_MMU,
    settings: Mapping[str, Any] | None = None,
    trace: str | Path | None = None,
    watched: bool | None = None,
    events: str | Path | None = None,
    address: str | None = None,
) -> RunResult:
    """As `migrc run`: a shipped workload or a TOML file, under several policies, in their order.

    `settings` are keys of the workload (`{"memory.fast_pages": 2048}`). `watched`: happens-before judges
    every step, by default of a live run. `events` is a file for them, of a timed run. Problem for what is
    wrong.
    """
    _known(policies, arch, mmu, seed)
    live = engine == "live"
    if engine not in ("timed", "live"):
        raise Problem(f"engine={engine!r}: 'timed' or 'live'")
    most = MAX_CPUS if live else MAX_TIMED_CPUS
    if not 1 <= cpus <= most:
        raise Problem(f"cpus={cpus}: 1 to {most} with the {engine} engine")
    if live and events is not None:
        raise Problem("events: of a timed run; a live run's recording tells them")
    workload = load_workload(scenario, _overrides(settings), live=live)
    workload.check(cpus)
    file = workload.trace_file(None if trace is None else Path(trace))
    how = mmu_on(arch, None if mmu == DEFAULT_MMU else mmu)
    subjects = [Subject(workload, one, arch, cpus, seed, file, mmu=how) for one in policies]
    document = document_of(subjects[0], engine)
    pictures: Pictures = {}
    if live:
        # Ray takes a second to import.
        from scenarios.runs.live import run_live

        run_live(
            subjects,
            address=address,
            dashboard=False,
            watched=watched is not False,
            record=None,
            progress=_quietly,
            document=document,
            pictures=pictures,
        )
    else:
        from scenarios.runs.timed import run_timed

        run_timed(
            subjects,
            watched=bool(watched),
            events=None if events is None else Path(events),
            progress=_quietly,
            document=document,
            pictures=pictures,
        )
    document["conclusion"] = conclusion(document)
    return RunResult(document, pictures)


def check(
    *names: str,
    policies: Sequence[str] = (),
    archs: Sequence[str] = (),
    mmu: str | None = None,
    strategy: str = "portfolio",
    schedules: int = 5_000,
    steps: int = 10_000,
    states: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    rules: Sequence[str] = (),
    ignore: Sequence[str] = (),
    history: bool = False,
    witnesses: str | Path = "witnesses",
) -> CheckResult:
    """As `migrc check`: litmus tests (names, wildcards, FILE.py), searched for broken rules.

    Without `policies` and `archs`: all that a test expects something of. `history`: names are of bugs.
    Problem for what is wrong with an argument; what is wrong with one test is that one's `error`.
    """
    for arch in archs:
        _known(policies or _POLICIES, arch, mmu or DEFAULT_MMU, seed)
    try:
        find_strategy(strategy) if strategy != EXHAUSTIVE else None
    except UnknownStrategy as problem:
        raise Problem(f"strategy: {problem}, or {EXHAUSTIVE}") from None
    for name, number in (
        ("schedules", schedules),
        ("steps", steps),
        ("states", states),
        ("seconds", seconds),
    ):
        if number is not None and number <= 0:
            raise Problem(f"{name}={number}: more than 0")
    if history and (policies or mmu):
        raise Problem("history: a bug says itself under what its test is run; without policies and mmu")
    bugs = bugs_named(names) if history else []
    tests = [] if history else tests_named(names, False)
    heeded = heed(tuple(rules), tuple(ignore), tests)
    jobs = [*plan(tests, policies, archs, heeded, mmu), *plan_of_history(bugs, archs, heeded, "")]
    how = Settings(strategy, schedules, steps, seconds, seed, Path(witnesses), states)
    return CheckResult(tuple(results(jobs, how, None, lambda job, done, text: None)))


def sweep(
    scenario: str,
    vary: Mapping[str, Sequence[Any]],
    *,
    policies: Sequence[str] = _POLICIES,
    cpus: int = 4,
    seed: int = 0,
    arch: str = "x86",
    mmu: str = DEFAULT_MMU,
    settings: Mapping[str, Any] | None = None,
    trace: str | Path | None = None,
    watched: bool = False,
    out: str | Path | None = None,
) -> SweepResult:
    """As `migrc sweep`: timed runs at every point of the grid that `vary` spans (`{"cpus": [4, 16]}`).

    With `out` results are kept there point by point, and the same sweep goes on from what is there.
    """
    axes: tuple[Axis, ...] = parse_axes([f"{key}={','.join(map(_text, each))}" for key, each in vary.items()])
    _known(policies, arch, mmu, seed)
    path = None if trace is None else Path(trace).resolve()
    how = None if mmu == DEFAULT_MMU else mmu
    whole = Sweep(scenario, _overrides(settings), axes, tuple(policies), cpus, seed, arch, how, path, watched)
    whole.check()
    with ResultFile(None if out is None else Path(out), whole) as file:
        for point in whole.points():
            if point not in file.results:
                file.add(point, whole.finished(point, run_point(whole.subject(point), watched)))
        return SweepResult(whole.document([file.results[point] for point in whole.points()]))


def _known(policies: Sequence[str], arch: str, mmu: str, seed: int) -> None:
    """Problem for what can be seen to be wrong before anything runs."""
    names = [canonical(one) for one in policies]
    if isinstance(policies, str) or not names or len(set(names)) < len(names):
        raise Problem(f"policies={policies!r}: a list of one or more, each once")
    for one in policies:
        policy_factory(one)
    mmu_class(mmu)
    if arch not in ARCHITECTURES:
        raise Problem(f"arch={arch!r}: {did_you_mean(str(arch), ARCHITECTURES)}")
    if not 0 <= seed <= MAX_SEED:
        raise Problem(f"seed={seed}: 0 to {MAX_SEED}")


def _overrides(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(f"{key}={_text(value)}" for key, value in (settings or {}).items())


def _text(value: Any) -> str:
    """As a TOML value is written."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quietly(policy: str, share: float, text: str) -> None:
    """Nobody looks at progress."""


def _row(run: Run) -> dict[str, Any]:
    figures = ("policy", "accesses", "elapsed_ns", "pending_peak", "shootdown_share", "wall_s")
    row: dict[str, Any] = {key: value for key, value in run.items() if key in figures}
    row["violations"] = len(run["violations"])
    row["interrupts"] = sum(run["interrupts"]["TLB"])
    for what, summary in run["ipi_latency_ns"].items():
        row |= {f"{what}_{name}_ns" if name != "count" else f"{what}s": one for name, one in summary.items()}
    for name, one in run.get("allocation_ns", {}).get("all", {}).items():
        row["allocations" if name == "count" else f"allocation_{name}_ns"] = one
    return row | run["vmstat"]


def _numbers(values: Mapping[str, str]) -> dict[str, Any]:
    """Values that vary, as numbers where they are."""
    found: dict[str, Any] = {}
    for key, text in values.items():
        for kind in (int, float):
            try:
                found[key] = kind(text)
                break
            except ValueError:
                found[key] = text
    return found
