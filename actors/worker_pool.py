"""Workers that share a row of jobs, on this machine or on a cluster.

Ray runs for as long as the `with` block lasts, and everything that it started is gone afterwards. A worker
is a Ray actor. What jobs are, and what they answer, only its own pool knows.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from actors.admission import version
from actors.cluster import RaySession
from actors.errors import SessionError
from actors.local_ray import cause, first_line
from actors.ray_calls import asked
from emulator.hardware.awaits import watch_coroutines

Job = TypeVar("Job")

_LOOK_S = 0.2


class Worker:
    """What every worker starts with: it finds modules in `folder` too."""

    def __init__(self, folder: str) -> None:
        watch_coroutines()
        if folder not in sys.path:
            sys.path.append(folder)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function answers here."""
        return function(*arguments)


class WorkerPool(RaySession):
    """`count` workers, each a new `make` in `folder`; `kind` is their name in errors. SessionError if Ray
    fails."""

    def __init__(
        self, make: type[Worker], kind: str, count: int, folder: str, address: str | None = None
    ) -> None:
        super().__init__(address)
        # Ray's decorator is a class to type checkers.
        self._make: Any = ray.remote(num_cpus=0, max_restarts=0)(make)
        self._kind = kind
        self._count = count
        self._folder = folder
        self._workers: list[Any] = []

    def begin(self) -> None:
        where = {"scheduling_strategy": "SPREAD"} if self._address else {}
        self._workers = [self._make.options(**where).remote(self._folder) for _ in range(self._count)]
        if self._address:
            self._same_everywhere()

    def _same_everywhere(self) -> None:
        """SessionError if a worker's node has another migrc, or none."""
        try:
            found = asked(ray.get, [worker.call.remote(version) for worker in self._workers])
        except ray.exceptions.RayError as problem:
            raise SessionError(f"a {self._kind} worker does not start: {cause(problem)}") from None
        for theirs in found:
            if theirs != version():
                raise SessionError(f"a node has another migrc: {theirs}; here {version()}")

    def end(self) -> None:
        for worker in self._workers:
            with contextlib.suppress(Exception):
                asked(ray.kill, worker)
        self._workers = []

    def answers(
        self,
        jobs: Iterable[Job],
        begin: Callable[[Any, Job], Any],
        look: Callable[[], object] | None = None,
    ) -> Iterator[tuple[Job, Any]]:
        """Every job with its answer, as they finish. `begin` gives a job to a worker: Ray's call.

        The next job is asked for when a worker is free. What workers are still at when the caller stops is
        not waited for, but their next job comes behind it. `look` is called a few times a second.
        SessionError if a worker dies.
        """
        ahead = iter(jobs)
        free = list(self._workers)
        calls: dict[Any, tuple[Any, Job]] = {}
        try:
            while True:
                for worker, job in zip(tuple(free), ahead, strict=False):
                    free.remove(worker)
                    calls[begin(worker, job)] = (worker, job)
                if not calls:
                    return
                if look is not None:
                    look()
                for call in asked(ray.wait, list(calls), timeout=_LOOK_S)[0]:
                    answer = asked(ray.get, call)
                    worker, job = calls.pop(call)
                    free.append(worker)
                    yield job, answer
        except ray.exceptions.RayError as problem:
            raise SessionError(f"a {self._kind} worker died: {first_line(problem)}") from None
