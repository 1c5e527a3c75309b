"""How long this thread has been ready to run and waited for a core, as the scheduler counts it.

Linux keeps it for every thread (run_delay, the second number of /proc/.../schedstat, as its
Documentation/scheduler/sched-stats.rst has it). A reading takes two microseconds, so it is made where
latencies begin and end, and at glances.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Final

_FILE: Final = "/proc/thread-self/schedstat"

Spans = dict[str, tuple[int, int]]
"""By kind of latency: ns altogether, and how much of that was waiting for a core."""


class CoreWait:
    """The clock of the thread that makes it. Where the system keeps none it stands still: not `known`."""

    def __init__(self) -> None:
        self._file = -1
        self.known = False
        with contextlib.suppress(OSError):
            self._file = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
            # Without CONFIG_SCHED_INFO there is no such file, or it is all zeros; a running thread has run.
            self.known = os.pread(self._file, 64, 0).split()[0] != b"0"

    def ns(self) -> int:
        """So far."""
        return int(os.pread(self._file, 64, 0).split()[1]) if self.known else 0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.known = False


def shares(all_spans: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, float]:
    """By kind, how much of the spans of all CPUs together was waiting; kinds without spans are left out."""
    sums: dict[str, list[int]] = {}
    for spans in all_spans:
        for kind, (whole, waited) in spans.items():
            found = sums.setdefault(kind, [0, 0])
            found[0] += whole
            found[1] += waited
    return {kind: round(waited / whole, 4) for kind, (whole, waited) in sums.items() if whole}
