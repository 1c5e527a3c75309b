"""`migrc sweep`: a grid of settings, every point of it a timed run; the points, their results and the file.

Each result is a line of JSON, written and flushed when its point is through, so that whatever ends a sweep
costs no more than the points under way. The first line says which sweep the file belongs to; the same sweep
goes on where it ended, another one is refused. A last line without its end is what a kill left behind, and is
dropped.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import COUNTERS
from scenarios.disk import file_problems
from scenarios.runs.document import LATENCIES, Run
from scenarios.runs.timed import timed_run
from scenarios.subjects.header import content_hash, project_version
from scenarios.subjects.mmus import mmu_on
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import MAX_SEED, MAX_TIMED_CPUS
from scenarios.workloads.workload_file import load_workload

MAX_POINTS: Final = 100_000
FORMAT: Final = 1
_PRODUCT: Final = re.compile(r"(\d{1,12})\*([a-z_][a-z_.0-9]*)")


class Axis(NamedTuple):
    """One thing that varies: `cpus`, `sockets`, `seed` or a key of the workload, and its values as given."""

    key: str
    values: tuple[str, ...]


class Point(NamedTuple):
    """One run: a value for each axis, in their order, and the policy."""

    values: tuple[str, ...]
    policy: str


class Finished(TypedDict):
    """A point that is through, as the file and the document have it."""

    values: dict[str, str]
    policy: str
    run: Run


_FINISHED: Final = TypeAdapter(Finished)
_SUMMARY: Final = Histogram().summary().keys()
_IDENTITY: Final = TypeAdapter(dict[str, Any])


def _check_counts(run: Run) -> None:
    """ValueError if something is missing that a report shows."""
    latencies = [run["ipi_latency_ns"].get(kind, {}) for kind in LATENCIES]
    missing = set(COUNTERS) - run["vmstat"].keys() or any(_SUMMARY - one.keys() for one in latencies)
    if missing or "shootdown_share" not in run or "TLB" not in run["interrupts"]:
        raise ValueError("not all that a report shows")


class SweepDocument(TypedDict):
    """The whole result of `migrc sweep`: its points in the order of the grid, the policy varying fastest."""

    scenario: str
    engine: str
    kernel: str
    arch: str
    mmu: str
    cpus: int
    seed: int
    vary: dict[str, list[str]]
    policies: list[str]
    points: list[Finished]
    interrupted: NotRequired[bool]
    stopped: NotRequired[str]


@dataclass(frozen=True)
class Sweep:
    """What to run. Its points are what workers run."""

    scenario: str
    overrides: tuple[str, ...]
    axes: tuple[Axis, ...]
    policies: tuple[str, ...]
    cpus: int
    seed: int
    arch: str
    mmu: str | None
    trace: Path | None
    watched: bool

    @property
    def how(self) -> str:
        """How flushes are carried out."""
        return mmu_on(self.arch, self.mmu)

    def points(self) -> list[Point]:
        values = itertools.product(*(axis.values for axis in self.axes))
        return [Point(one, policy) for one in values for policy in self.policies]

    def subject(self, point: Point) -> Subject:
        """What is run at a point. UsageProblem if its settings are impossible."""
        cpus, seed = self.cpus, self.seed
        overrides = list(self.overrides)
        varied = []
        for key, value in self._numbers(point).items():
            if key == "cpus":
                cpus = _number(key, value, 1, MAX_TIMED_CPUS)
            elif key == "seed":
                seed = _number(key, value, 0, MAX_SEED)
            else:
                varied.append("costs.sockets" if key == "sockets" else key)
                overrides.append(f"{varied[-1]}={value}")
        try:
            workload = load_workload(self.scenario, overrides)
        except UsageProblem as problem:
            text = problem.message
            if any(text.startswith(f"--set {key}") for key in varied):
                text = text.replace("--set", "--vary", 1)
            raise UsageProblem(text) from None
        workload.check(cpus)
        trace = workload.trace_file(self.trace)
        return Subject(workload, point.policy, self.arch, cpus, seed, trace, mmu=self.how)

    def document(self, points: list[Finished]) -> SweepDocument:
        """The result, with these points."""
        workload = load_workload(self.scenario, self.overrides)
        return SweepDocument(
            scenario=workload.name,
            engine="timed",
            kernel=workload.kernel.version,
            arch=self.arch,
            mmu=self.how,
            cpus=self.cpus,
            seed=self.seed,
            vary={axis.key: list(axis.values) for axis in self.axes},
            policies=list(self.policies),
            points=points,
        )

    def check(self) -> None:
        """UsageProblem if any point of the grid is impossible, or it is too large."""
        count = math.prod(len(axis.values) for axis in self.axes) * len(self.policies)
        if count > MAX_POINTS:
            raise UsageProblem(f"--vary: {count:,} runs; {MAX_POINTS:,} or fewer")
        for point in self.points():
            if point.policy == self.policies[0]:
                self.subject(point)

    def identity(self) -> dict[str, Any]:
        """What makes it this sweep and no other; plain values."""
        base = load_workload(self.scenario, self.overrides)
        trace = base.trace_file(self.trace)
        settings = json.dumps(base.model_dump(), sort_keys=True)
        return {
            "migrc_sweep": FORMAT,
            "scenario": base.name,
            "settings": blake2b(settings.encode(), digest_size=16).hexdigest(),
            "vary": {axis.key: list(axis.values) for axis in self.axes},
            "policies": list(self.policies),
            "cpus": self.cpus,
            "seed": self.seed,
            "arch": self.arch,
            "mmu": self.how,
            "trace": None if trace is None else content_hash(trace),
            "watched": self.watched,
            "project": project_version(),
        }

    def name(self, point: Point) -> str:
        """The values that vary, and the policy."""
        return " ".join((*(f"{key}={value}" for key, value in self._varied(point).items()), point.policy))

    def finished(self, point: Point, run: Run) -> Finished:
        return Finished(values=self._varied(point), policy=point.policy, run=run)

    def _numbers(self, point: Point) -> dict[str, str]:
        """What varies, with `N*KEY` worked out: so many of what another axis has at this point."""
        varied = self._varied(point)
        known = {"cpus": str(self.cpus), **varied}
        found = {}
        for key, value in varied.items():
            product = _PRODUCT.fullmatch(value)
            if product is not None:
                of = product[2]
                number = known.get(of, "")
                if of == key or not number.isdecimal():
                    others = ", ".join(one for one in known if one != key and known[one].isdecimal())
                    right = others or "a number, or vary something else too"
                    raise UsageProblem(f"--vary {key}={value}: {of} is no other axis with numbers; {right}")
                value = str(int(product[1]) * int(number))
            found[key] = value
        return found

    def _varied(self, point: Point) -> dict[str, str]:
        return dict(zip((axis.key for axis in self.axes), point.values, strict=True))


def run_point(subject: Subject, watched: bool) -> Run:
    """One point's timed run. UsageProblem if it cannot be run or a program raises."""
    return timed_run(subject, watched, lambda policy, share, text: None)[0]


def told_point(subject: Subject, watched: bool) -> Run | str:
    """The same in a worker process, or the one line of a UsageProblem."""
    try:
        return run_point(subject, watched)
    except UsageProblem as problem:
        return problem.message


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """`KEY=a,b,c`, each key once and each value once. UsageProblem for anything else."""
    axes: list[Axis] = []
    for text in texts:
        key, equals, rest = text.partition("=")
        key = key.strip()
        values = tuple(value.strip() for value in rest.split(","))
        if not equals or not key or not all(values):
            raise UsageProblem(f"--vary {text}: not understood; KEY=a,b,c, such as cpus=4,16,64")
        if "." not in key and key not in ("cpus", "sockets", "seed"):
            raise UsageProblem(f"--vary {text}: {key} is no key; cpus, sockets, seed or section.key")
        for number, value in enumerate(values):
            if value in values[:number]:
                raise UsageProblem(f"--vary {text}: {value} is given twice; each value once")
        if any(axis.key == key for axis in axes):
            raise UsageProblem(f"--vary {text}: {key} is varied twice; all its values in one --vary")
        axes.append(Axis(key, values))
    keys = [axis.key for axis in axes]
    if "sockets" in keys and "costs.sockets" in keys:
        raise UsageProblem("--vary: sockets and costs.sockets are the same; one of them")
    return tuple(axes)


class ResultFile:
    """The results of one sweep on disk, or of none if there is no path. `results`: point to its result.

    UsageProblem if the file is something else, or cannot be written.
    """

    def __init__(self, path: Path | None, sweep: Sweep) -> None:
        self.results: dict[Point, Finished] = {}
        self._path = path
        self._sweep = sweep
        self._open = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> ResultFile:
        path = self._path
        if path is not None:
            with self._open, self._writable():
                if path.exists() and not path.is_file() and not path.is_dir():
                    # Devices and pipes: what is written there is not there when the sweep goes on.
                    raise UsageProblem(f"--out {path}: no regular file; the path of one, or of a new one")
                self._file = self._open.enter_context(path.open("r+b" if path.exists() else "w+b"))
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageProblem(f"--out {path}: another sweep writes it; another file") from None
                self._read(self._file, self._sweep)
                self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, point: Point, finished: Finished) -> None:
        """A point is through: its result is on disk when this returns."""
        self.results[point] = finished
        if self._file is not None:
            with self._writable():
                self._file.write(json.dumps(finished).encode() + b"\n")
                self._file.flush()

    def _writable(self) -> AbstractContextManager[None]:
        return file_problems(f"--out {self._path}", "a file that can be written")

    def _read(self, file: IO[bytes], sweep: Sweep) -> None:
        wanted = sweep.identity()
        head = json.dumps(wanted).encode() + b"\n"
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if not whole:
            if not head.startswith(content):
                raise self._no_sweep()
            file.seek(0)
            file.truncate()
            file.write(head)
            file.flush()
            return
        first, *lines = content[:whole].splitlines()
        self._compare(first, wanted)
        points = {(point.values, point.policy): point for point in sweep.points()}
        keys = [axis.key for axis in sweep.axes]
        for number, line in enumerate(lines, 2):
            try:
                finished = _FINISHED.validate_json(line, strict=True)
                _check_counts(finished["run"])
                point = points[tuple(finished["values"][key] for key in keys), finished["policy"]]
            except (ValueError, LookupError):
                raise UsageProblem(
                    f"--out {self._path}: line {number} is damaged; remove that line, or another file"
                ) from None
            self.results[point] = finished
        file.seek(whole)
        file.truncate()

    def _compare(self, first: bytes, wanted: dict[str, Any]) -> None:
        try:
            found = _IDENTITY.validate_json(first)
            if "migrc_sweep" not in found:
                raise ValueError
        except ValueError:
            raise self._no_sweep() from None
        for key, value in wanted.items():
            if found.get(key) != value:
                raise UsageProblem(
                    f"--out {self._path}: holds another sweep ({key} differs); "
                    "another file, or the same command"
                )

    def _no_sweep(self) -> UsageProblem:
        return UsageProblem(f"--out {self._path}: not the result of a sweep; another file, or a new one")


def _number(key: str, text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise UsageProblem(f"--vary {key}: {text} is no whole number; {least} to {most}") from None
    if not least <= value <= most:
        raise UsageProblem(f"--vary {key}: {value} is out of range; {least} to {most}")
    return value
