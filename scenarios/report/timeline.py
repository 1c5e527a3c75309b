"""A timed run's events as one HTML page: interrupts and counters over time, who interrupts whom, and in which
functions CPUs spent their time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TextIO

from scenarios.events.event import Event, Reason, What
from scenarios.events.event_file import EventHeader
from scenarios.report.charts import over_time
from scenarios.report.figures import duration
from scenarios.report.templates import template
from scenarios.subjects.header import project_version

_BUCKETS: Final = 120
_MOST_FUNCTIONS: Final = 25
_MOST_CPUS: Final = 64
_MOST_BROKEN: Final = 50
_PENDING: Final = "pending pages"


def write_timeline(header: EventHeader, events: Iterable[Event], into: TextIO) -> int:
    """Write the page; of how many events it is."""
    seen = _Seen(header.cpus)
    for event in events:
        seen.add(event)
    text = template("timeline.html").render(
        title=header.title,
        version=project_version(),
        seen=seen,
        charts=[*seen.charts()],
        counters=[*seen.counted()],
        functions=seen.functions.most_common(_MOST_FUNCTIONS),
        whole=max(seen.end * header.cpus, 1),
        shown=range(min(header.cpus, _MOST_CPUS)),
        most=max(seen.pairs.values(), default=1),
        broken=seen.broken[:_MOST_BROKEN],
    )
    into.write(text)
    return seen.count


class Open(NamedTuple):
    """A function that has begun and not ended."""

    name: str
    since: int


class _Seen:
    """What events come to. `functions` have the time in themselves, without those that they call, in ns."""

    def __init__(self, cpus: int) -> None:
        self.count = 0
        self.end = 0
        self.sends: list[tuple[int, int]] = []
        self.pairs: Counter[tuple[int, int]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.counters: dict[str, list[tuple[int, int]]] = {}
        self.broken: list[tuple[int, str]] = []
        self._open: list[list[Open]] = [[] for _ in range(cpus)]
        self._since = [0] * cpus

    def add(self, event: Event) -> None:
        at, cpu, what, name, values = event
        self.count += 1
        self.end = max(self.end, at)
        if what in (What.ENTER, What.LEAVE):
            stack = self._open[cpu]
            if stack:
                self.functions[stack[-1].name] += at - self._since[cpu]
            self._since[cpu] = at
            if what is What.ENTER:
                stack.append(Open(name, at))
                self.calls[name] += 1
            else:
                stack.pop()
        elif what is What.SEND:
            self.sends.append((at, len(values) - 2))
            self.pairs.update((cpu, target) for target in values[2:])
        elif what is What.FLUSH:
            self.reasons[Reason(values[0]).name.lower().replace("_", " ")] += 1
        elif what is What.COUNTER:
            line = self.counters.setdefault(name, [])
            line.append((at, values[0]))
        elif what is What.VIOLATION:
            self.broken.append((at, name))

    def charts(self) -> Iterator[Any]:
        """Over time: interrupts in each part of the run, and pages that wait for a flush."""
        parts = [0] * (self.end // self._width + 1)
        for at, targets in self.sends:
            parts[at // self._width] += targets
        if self.sends:
            line = [(place * self._width, sent) for place, sent in enumerate(parts)]
            yield over_time(f"interrupts sent, in each {duration(self._width)}", self.end, line)
        if any(value for _, value in self.counters.get(_PENDING, ())):
            yield over_time(_PENDING, self.end, [*self._thinned(self.counters[_PENDING])])

    def counted(self) -> Iterator[Any]:
        """All other counters that ticked, over time."""
        for name in sorted(self.counters.keys() - {_PENDING}):
            if any(value for _, value in self.counters[name]):
                yield over_time(name, self.end, [(0, 0), *self._thinned(self.counters[name])])

    @property
    def _width(self) -> int:
        return self.end // _BUCKETS + 1

    def _thinned(self, values: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The last and the largest value of each part: what a line of that width can show."""
        width = self._width
        largest: dict[int, tuple[int, int]] = {}
        last: dict[int, tuple[int, int]] = {}
        for at, value in values:
            part = at // width
            last[part] = (at, value)
            if part not in largest or value > largest[part][1]:
                largest[part] = (at, value)
        for part, point in largest.items():
            yield point
            if last[part] != point:
                yield last[part]
