"""A search spread over Ray: every worker searches ranges of run numbers on a machine of its own.

Workers are told names, never programs: a worker imports the function that opens a machine by its dotted
name and keeps the machine from range to range.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

from actors.errors import Fault, ProgramError, fault_of
from actors.worker_pool import Worker, WorkerPool
from emulator.explore.compiled.runs import search
from emulator.explore.explorer import Explorer
from emulator.explore.search import Limits, Tally
from emulator.explore.strategies import find_strategy
from emulator.machine.progress import running_cpu


class Task(NamedTuple):
    """What to search: `opener` is `module:function`, called with `arguments`; it answers an Explorer."""

    opener: str
    arguments: tuple[Any, ...]
    strategy: str
    seed: int
    steps: int


class Range(NamedTuple):
    """What came out of the runs from `first` on; `reached` are counters, `fault` ended it (CPU or -1)."""

    first: int
    tally: Tally
    reached: frozenset[str]
    fault: tuple[int, Fault] | None = None


class SearchWorker(Worker):
    """Searches ranges, one after the other; keeps the machine of the last task."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._opened: tuple[str, tuple[Any, ...]] | None = None
        self._machine: Explorer | None = None

    def search(self, task: Task, first: int, schedules: int, seconds: float | None) -> Range:
        """The runs from `first` on, with a fresh strategy; what raises is told as values."""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            machine = self._open(task)
            tally = search(
                machine,
                find_strategy(task.strategy)(),
                task.seed,
                Limits(schedules, task.steps),
                lambda: deadline is not None and time.monotonic() > deadline,
                first,
            )
        except Exception as problem:
            self._opened = None
            return Range(first, Tally(), frozenset(), (running_cpu(problem), fault_of(problem)))
        return Range(first, tally, frozenset(getattr(machine, "reached", ())))

    def _open(self, task: Task) -> Explorer:
        wanted = (task.opener, task.arguments)
        if self._machine is None or self._opened != wanted:
            module, _, function = task.opener.partition(":")
            self._machine = getattr(importlib.import_module(module), function)(*task.arguments)
            self._opened = wanted
        return self._machine


class SearchWorkers(WorkerPool):
    """`count` workers on this machine, which find modules in `folder` too. SessionError if Ray fails."""

    def __init__(self, count: int, folder: str) -> None:
        super().__init__(SearchWorker, "search", count, folder)

    def ranges(
        self, task: Task, runs: range, seconds: float | None, look: Callable[[], object]
    ) -> Iterator[Range]:
        """What comes out of the runs from `runs.start` to `runs.stop`, in ranges of `runs.step`, in order.

        Ends with the first range, by number, that holds a violation; what other workers are still at then is
        not waited for, but their next task comes behind it. `look` is called a few times a second.
        SessionError if a worker dies, ProgramError if something raised.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        finished: dict[int, Range] = {}
        due = runs.start
        ended = False

        def begin(worker: Any, first: int) -> Any:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return worker.search.remote(task, first, min(runs.step, runs.stop - first), left)

        ahead = takewhile(lambda _: not ended, runs)
        for first, found in self.answers(ahead, begin, look):
            finished[first] = found
            ended = ended or found.tally.violation is not None or found.fault is not None
            while due in finished:
                found = finished.pop(due)
                due += runs.step
                if found.fault is not None:
                    raise ProgramError(*found.fault)
                yield found
                if found.tally.violation is not None:
                    return
                ended = ended or (deadline is not None and time.monotonic() > deadline)
