"""How long tasks wait for a page: from asking the allocator to having one, what it makes them do included.

That is where those pay who put a flush off until a frame is used again, and it need not be the task that has
put it off that pays: so times are kept by address space.
"""

from __future__ import annotations

from emulator.measure.histogram import Histogram


class Allocations:
    """The stopwatch of one CPU, whose time is its entry of `clocks`; `times` of all CPUs are in ns, by mm."""

    __slots__ = ("_clocks", "_number", "_times")

    def __init__(self, times: dict[int, Histogram], clocks: list[int], number: int) -> None:
        self._times = times
        self._clocks = clocks
        self._number = number

    def now(self) -> int:
        """The CPU's time."""
        return self._clocks[self._number]

    def allocated(self, mm: int, begun: int) -> None:
        """Note one allocation."""
        found = self._times.get(mm)
        if found is None:
            found = self._times[mm] = Histogram()
        found.record(self._clocks[self._number] - begun)
