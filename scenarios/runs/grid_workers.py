"""Points of a sweep spread over worker processes on Ray. Workers get plain values and answer plain values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from actors.worker_pool import Worker, WorkerPool
from scenarios.runs.document import Run
from scenarios.runs.grid import Point, Sweep, run_point
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem


class SweepWorker(Worker):
    """Runs points, one after the other."""

    def run(self, subject: Subject, watched: bool) -> Run | str:
        """The subject's run, or the one line of a UsageProblem."""
        try:
            return run_point(subject, watched)
        except UsageProblem as problem:
            return problem.message


class SweepWorkers(WorkerPool):
    """`count` workers on this machine, which find modules in `folder` too. SessionError if Ray fails."""

    def __init__(self, count: int, folder: str) -> None:
        super().__init__(SweepWorker, "sweep", count, folder)

    def results(self, sweep: Sweep, points: Iterable[Point]) -> Iterator[tuple[Point, Run]]:
        """Every point with its run, as they finish. UsageProblem if one cannot be run, SessionError if a
        worker dies."""

        def begin(worker: Any, point: Point) -> Any:
            return worker.run.remote(sweep.subject(point), sweep.watched)

        found: Run | str
        for point, found in self._answers(points, begin):
            if isinstance(found, str):
                raise UsageProblem(found)
            yield point, found
