"""Shares of one search, a Ray actor each: a crew (`sharing_out.Crew`) of worker processes.

A worker holds states as numbers and nothing of a program. What workers send each other are Ray's objects: the
driver hands on references, and never sees what is in them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ray

from actors.cluster import RaySession
from actors.local_ray import first_line
from actors.ray_calls import answer_s, asked
from actors.resident import resident_bytes
from emulator.explore.compiled.share import Order, Report, Share
from emulator.explore.compiled.sharing_out import Lost

_LOOK_S: Final = 0.2
# A worker reads out what it holds in pieces, and may be in the middle of an order.
_PATIENCE: Final = 10


class _ShareActor:
    """One share, and the process that it is in."""

    def __init__(self, cpus: int) -> None:
        # Ctrl-C goes to the whole foreground process group; ending workers is the driver's part.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._share = Share(cpus)

    def work(self, order: Order, *parcels: bytes) -> tuple[Report | bytes, ...]:
        report, sent = self._share.work(order, parcels)
        return report._replace(memory=resident_bytes()), *sent

    def ask(self, question: str, *arguments: Any) -> Any:
        return getattr(self._share, question)(*arguments)

    def process(self) -> int:
        return os.getpid()


ShareActor = ray.remote(num_cpus=0, max_restarts=0)(_ShareActor)


class ShareCrew:
    """`count` workers on the Ray that this process is connected to, on all nodes of it if `spread`."""

    def __init__(self, count: int, cpus: int, spread: bool = False) -> None:
        where = {"scheduling_strategy": "SPREAD"} if spread else {}
        self.count = count
        self._workers: list[Any] = [ShareActor.options(**where).remote(cpus) for _ in range(count)]
        self._calls: dict[Any, tuple[int, list[Any]]] = {}

    def process(self, share: int) -> int:
        """The number of a share's process on its node."""
        number: int = self._answer(share, self._workers[share].process.remote())
        return number

    def send(self, share: int, order: Order, parcels: Sequence[Any]) -> None:
        work = self._workers[share].work.options(num_returns=1 + self.count)
        report, *sent = work.remote(order, *parcels)
        self._calls[report] = share, sent

    def receive(self, patient: bool) -> Iterator[tuple[int, Report, list[Any]]]:
        ready, left = asked(ray.wait, list(self._calls), timeout=_LOOK_S if patient else 0)
        if left:
            ready += asked(ray.wait, left, num_returns=len(left), timeout=0)[0]
        for call in ready:
            share, sent = self._calls.pop(call)
            yield share, self._answer(share, call), sent

    def ask(self, share: int, question: str, *arguments: Any) -> Any:
        return self._answer(share, self._workers[share].ask.remote(question, *arguments))

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            with contextlib.suppress(Exception):
                asked(ray.kill, worker)
        self._workers = []

    def _answer(self, share: int, call: Any) -> Any:
        try:
            return asked(ray.get, call, limit_s=_PATIENCE * answer_s())
        except ray.exceptions.RayTaskError as problem:
            raise Lost(f"worker {share + 1} of {self.count}: {problem.cause!r}") from None
        except ray.exceptions.RayError as problem:
            raise Lost(f"worker {share + 1} of {self.count} is gone: {first_line(problem)}") from None


class ShareWorkers(RaySession):
    """A crew for as long as the `with` block lasts, on a Ray of its own or the cluster at `address`."""

    def __init__(self, count: int, cpus: int, address: str | None = None) -> None:
        super().__init__(address)
        self._count = count
        self._cpus = cpus
        self._crew: ShareCrew | None = None

    @property
    def crew(self) -> ShareCrew:
        assert self._crew is not None, "the session is open"
        return self._crew

    def begin(self) -> None:
        self._crew = ShareCrew(self._count, self._cpus, self._address is not None)

    def end(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None
