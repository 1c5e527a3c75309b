"""A capture of a real kernel as events: the text of ftrace, of `trace-cmd report` or of `perf script`.

Calls are told from `csd:*` (v6.3 and on), flushes from `tlb:tlb_flush`; a capture needs one of them at least.
The tracepoints' formats are those of include/trace/events/{csd,ipi,tlb,migrate,sched}.h, v6.12 and v6.18.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from scenarios.events.event import Event, Reason, What

MOST_CPUS: Final = 4096
RECORD_WITH: Final = (
    "perf record -a -e tlb:tlb_flush,csd:csd_queue_cpu,csd:csd_function_entry,csd:csd_function_exit,"
    "irq_vectors:call_function_entry,irq_vectors:call_function_single_entry -- COMMAND; perf script --ns"
)
_MOST_LINES: Final = 20_000_000
_LONGEST: Final = 4096
_LINE: Final = re.compile(
    r"\s*\S.*?[-\s](?P<pid>\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[(?P<cpu>\d+)\]\s+(?:[A-Za-z0-9.#]{4,}\s+)?"
    r"(?P<time>\d+(?:\.\d+)?):\s+(?:(?P<system>\w+):)?(?P<event>\w+):\s*(?P<text>.*)"
)
_LOST: Final = re.compile(r"CPU:\d+ \[LOST(?: (\d+))? EVENTS\]")
_FIELD: Final = re.compile(r"(\w+)=([^\s,]+)")
_FLUSH: Final = re.compile(r"pages:(-?\d+) reason:.*\((\d+)\)")
_SWITCH: Final = re.compile(r".*next_comm=(.*) next_pid=(\d+)")
_MIGRATED: Final = re.compile(r"nr_succeeded=(\d+)")
_OFFSET: Final = re.compile(r"\+0x[0-9a-f]+(/0x[0-9a-f]+)?$")

_REASONS: Final = {str(int(reason)): reason for reason in Reason}


class CaptureProblem(ValueError):
    """It is no capture, or one that says nothing of flushes; the text says which line."""


class Capture(NamedTuple):
    """What was read: CPUs, events in the order of time, in ns from the first on, how many lines had an event
    and how many had none, how many events the kernel lost, and whether times are in whole microseconds."""

    cpus: int
    events: list[Event]
    lines: int
    ignored: int
    lost: int
    coarse: bool


class _Group:
    """A request that is being queued: one call_single_data after the other."""

    def __init__(self, at: int, place: int, request: int, function: str) -> None:
        self.at, self.place, self.request, self.function = at, place, request, function
        self.targets: list[int] = []


class _Call(NamedTuple):
    sender: int
    request: int
    function: str


def read_capture(lines: Iterable[str], look: Callable[[int], None] = lambda number: None) -> Capture:
    """Every event of it. Raises CaptureProblem."""
    reader = _Reader()
    number = 0
    for number, line in enumerate(lines, 1):
        if number > _MOST_LINES:
            raise CaptureProblem(f"more than {_MOST_LINES:,} lines")
        if not number % 10_000:
            look(number)
        try:
            reader.read(line)
        except CaptureProblem as problem:
            raise CaptureProblem(f"line {number}: {problem}") from None
    reader.close()
    if not reader.found:
        said = "no tlb_flush and no csd_* among its events" if reader.lines else "no line is an event"
        raise CaptureProblem(f"{said}; {RECORD_WITH}")
    ordered = [event for _, _, event in sorted(reader.events)]
    return Capture(reader.cpus, ordered, reader.lines, number - reader.lines, reader.lost, not reader.fine)


class _Reader:
    def __init__(self) -> None:
        self.events: list[tuple[int, int, Event]] = []
        self.cpus = self.lines = self.lost = 0
        self.fine = self.found = False
        self._start = -1
        self._last: dict[int, int] = {}
        self._requests: Counter[int] = Counter()
        self._queueing: dict[int, _Group] = {}
        self._queued: dict[str, _Call] = {}
        self._owed: dict[tuple[int, int], set[int]] = {}
        self._entered: dict[int, int] = {}  # CPU -> when its interrupt began
        self._open: dict[int, list[tuple[str, str]]] = defaultdict(list)  # functions, with their csd
        self._migrated = 0

    def read(self, line: str) -> None:
        if len(line) > _LONGEST:
            raise CaptureProblem("it is longer than any event's")
        lost = _LOST.search(line)
        if lost:
            self.lost += int(lost[1] or 1)
            return
        found = None if line.startswith("#") else _LINE.match(line)
        if found is None:
            return
        at, cpu = self._time(found["time"]), int(found["cpu"])
        if cpu >= MOST_CPUS:
            raise CaptureProblem(f"CPU {cpu}: more than {MOST_CPUS:,} CPUs")
        if at < self._last.get(cpu, at):
            raise CaptureProblem(f"time goes back on CPU {cpu}; one capture, in the order of time")
        self._last[cpu] = at
        # Of two CPUs the later one may have been read first.
        at = max(at, 0)
        self.cpus = max(self.cpus, cpu + 1)
        self.lines += 1
        heard = _EVENTS.get(found["event"])
        if found["event"] != "csd_queue_cpu":
            self._close(cpu)
        if heard is not None:
            heard(self, at, cpu, found["text"])

    def close(self) -> None:
        for cpu in list(self._queueing):
            self._close(cpu)

    def _time(self, text: str) -> int:
        """ns since the first event."""
        seconds, _, fraction = text.partition(".")
        if len(fraction) not in (6, 9):
            raise CaptureProblem(f"its time is {text}; seconds with 6 or 9 digits behind the point")
        self.fine = self.fine or len(fraction) == 9
        at = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        if self._start < 0:
            self._start = at
        return at - self._start

    def _tell(self, at: int, cpu: int, what: What, name: str = "", *values: int) -> None:
        self.events.append((at, len(self.events), Event(at, cpu, what, name, values)))

    def _queue(self, at: int, cpu: int, text: str) -> None:
        fields = _fields(text, "cpu", "func", "csd")
        target, function = _number(fields["cpu"]), _name(fields["func"])
        if target >= MOST_CPUS:
            raise CaptureProblem(f"CPU {target}: more than {MOST_CPUS:,} CPUs")
        self.cpus = max(self.cpus, target + 1)
        group = self._queueing.get(cpu)
        if group is None or group.function != function or target in group.targets:
            self._close(cpu)
            self._requests[cpu] += 1
            # It keeps its place in the order of events until all targets are known.
            place = len(self.events)
            self.events.append((at, place, Event(at, cpu, What.SEND, function, ())))
            group = self._queueing[cpu] = _Group(at, place, self._requests[cpu], function)
        group.targets.append(target)
        self._queued[fields["csd"]] = _Call(cpu, group.request, function)
        self._owed.setdefault((cpu, group.request), set()).add(target)
        self.found = True

    def _close(self, cpu: int) -> None:
        group = self._queueing.pop(cpu, None)
        if group is not None:
            values = (group.request, 1, *group.targets)
            sent = Event(group.at, cpu, What.SEND, group.function, values)
            self.events[group.place] = (group.at, group.place, sent)

    def _interrupt(self, at: int, cpu: int, text: str) -> None:
        self._entered[cpu] = at

    def _back(self, at: int, cpu: int, text: str) -> None:
        self._entered.pop(cpu, None)

    def _begin(self, at: int, cpu: int, text: str) -> None:
        fields = _fields(text, "func", "csd")
        name = _name(fields["func"])
        call = self._queued.get(fields["csd"])
        if call is not None and call.function == name:
            # All that an interrupt finds in the queue it takes at once.
            self._tell(self._entered.get(cpu, at), cpu, What.TAKE, name, call.sender, call.request)
        self._tell(at, cpu, What.ENTER, name, int(call is not None))
        self._open[cpu].append((name, fields["csd"]))
        self.found = True

    def _end(self, at: int, cpu: int, text: str) -> None:
        fields = _fields(text, "func", "csd")
        stack = self._open[cpu]
        if (_name(fields["func"]), fields["csd"]) not in stack:
            # It had begun before the capture did.
            return
        while stack:
            name, csd = stack.pop()
            self._tell(at, cpu, What.LEAVE, name)
            if (name, csd) == (_name(fields["func"]), fields["csd"]):
                break
        call = self._queued.pop(fields["csd"], None)
        if call is None:
            return
        self._tell(at, cpu, What.ACK, "", call.sender, call.request)
        owed = self._owed[call.sender, call.request]
        owed.discard(cpu)
        if not owed:
            del self._owed[call.sender, call.request]
            # Nobody traces when the sender sees it: it does so soon.
            self._tell(at, call.sender, What.ACKED, "", call.request)

    def _flush(self, at: int, cpu: int, text: str) -> None:
        found = _FLUSH.match(text)
        if found is None or found[2] not in _REASONS or len(found[1]) > 9:
            raise CaptureProblem(f"{text[:80]!r} is no tlb_flush that is known")
        # Negative is TLB_FLUSH_ALL.
        self._tell(at, cpu, What.FLUSH, "tlb_flush", _REASONS[found[2]], max(int(found[1]), -1))
        self.found = True

    def _switch(self, at: int, cpu: int, text: str) -> None:
        found = _SWITCH.match(text)
        if found is not None:
            self._tell(at, cpu, What.TASK, found[1][:16], int(found[2]) & 0x7FFFFFFF, 0)

    def _migrate(self, at: int, cpu: int, text: str) -> None:
        found = _MIGRATED.search(text)
        if found is not None:
            self._migrated += int(found[1])
            self._tell(at, -1, What.COUNTER, "pgmigrate_success", self._migrated)


_EVENTS: Final[dict[str, Callable[[_Reader, int, int, str], None]]] = {
    "csd_queue_cpu": _Reader._queue,
    "csd_function_entry": _Reader._begin,
    "csd_function_exit": _Reader._end,
    "call_function_entry": _Reader._interrupt,
    "call_function_single_entry": _Reader._interrupt,
    "call_function_exit": _Reader._back,
    "call_function_single_exit": _Reader._back,
    "tlb_flush": _Reader._flush,
    "sched_switch": _Reader._switch,
    "mm_migrate_pages": _Reader._migrate,
}


def _fields(text: str, *names: str) -> dict[str, str]:
    found = dict(_FIELD.findall(text))
    missing = [name for name in names if name not in found]
    if missing:
        raise CaptureProblem(f"no {missing[0]}= in {text[:80]!r}")
    return found


def _name(text: str) -> str:
    return _OFFSET.sub("", text)


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise CaptureProblem(f"{text[:20]!r} is no CPU")
    return int(text)
