"""Points of a sweep spread over worker processes on Ray. Workers get plain values and answer plain values.

Ray runs for as long as the `with` block lasts, and everything that it started is gone afterwards.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import ray

from actors import cluster
from actors.errors import SessionError
from scenarios.errors import UsageProblem
from scenarios.programs import drop_programs_quietly
from scenarios.report.live import Run
from scenarios.sweep import Point, Sweep, run_point


@ray.remote(num_cpus=0, max_restarts=0)
class SweepWorker:
    """Runs points, one after the other."""

    def __init__(self, folder: str) -> None:
        drop_programs_quietly()
        if folder not in sys.path:
            sys.path.insert(0, folder)

    def run(self, sweep: Sweep, point: Point) -> Run | str:
        """The point's run, or the one line of a UsageProblem."""
        try:
            return run_point(sweep, point)
        except UsageProblem as problem:
            return problem.message


class SweepWorkers:
    """`count` workers on this machine, which find modules in `folder` too. SessionError if Ray fails."""

    def __init__(self, count: int, folder: str) -> None:
        self._count = count
        self._folder = folder
        self._directory = ""
        self._workers: list[Any] = []
        self._signals = contextlib.ExitStack()

    def __enter__(self) -> SweepWorkers:
        self._signals.enter_context(cluster.termination_unwinds())
        try:
            with cluster.signals_wait():
                self._directory = cluster.start_here(dashboard=False)
                # Ray's decorator is a class to type checkers.
                make: Any = SweepWorker
                self._workers = [make.remote(self._folder) for _ in range(self._count)]
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        try:
            with cluster.signals_wait():
                for worker in self._workers:
                    with contextlib.suppress(Exception):
                        ray.kill(worker)
                self._workers = []
                if self._directory:
                    cluster.stop_here(self._directory)
                    self._directory = ""
        finally:
            self._signals.close()

    def results(self, sweep: Sweep, points: Iterable[Point]) -> Iterator[tuple[Point, Run]]:
        """Every point with its run, as they finish. UsageProblem if one cannot be run, SessionError if a
        worker dies."""
        ahead = iter(points)
        free = list(self._workers)
        calls: dict[Any, tuple[Any, Point]] = {}
        try:
            while True:
                while free and (point := next(ahead, None)) is not None:
                    worker = free.pop()
                    calls[worker.run.remote(sweep, point)] = (worker, point)
                if not calls:
                    return
                for call in ray.wait(list(calls))[0]:
                    found: Run | str = ray.get(call)
                    worker, point = calls.pop(call)
                    free.append(worker)
                    if isinstance(found, str):
                        raise UsageProblem(found)
                    yield point, found
        except ray.exceptions.RayError as problem:
            text = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise SessionError(f"a sweep worker died: {text}") from None
