"""What events come to: counters, interrupts and latencies as in a run's document, of any engine or kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from emulator.measure.histogram import Histogram
from scenarios.events.event import Event, Reason, What
from scenarios.runs.document import LATENCIES

_BEGINNINGS: Final = ("flush_tlb", "do_flush_tlb_all", "do_kernel_range_flush", "do_sync_core")
_COUNTED: Final = {
    Reason.REMOTE_SEND_IPI: "nr_tlb_remote_flush",
    Reason.TASK_SWITCH: "tlb_flush_on_task_switch",
}


class Handled(NamedTuple):
    """A flush that another CPU was interrupted for: ns in the function, and pages that it dropped one by one,
    -1 for all, None if it said nothing."""

    ns: int
    pages: int | None


class Figures:
    """Fed with events in order of time, or of each CPU's; times are ns.

    `counters` by the names of /proc/vmstat as far as events say them; `interrupts` by CPU, of flushes alone;
    `single`: deliveries of requests with one target; `handled`: what handlers did; `early`: calls that were
    taken before they were sent, where two CPUs' clocks disagree, which no latency is of.
    """

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.counters: Counter[str] = Counter()
        self.interrupts = [0] * cpus
        self.latencies = {kind: Histogram() for kind in LATENCIES}
        self.single: list[int] = []
        self.handled: list[Handled] = []
        self.early = self.end = 0
        self._sent: dict[tuple[int, int], tuple[int, int]] = {}
        self._open: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self._taken: dict[int, list[tuple[str, int]]] = defaultdict(list)  # calls taken and not begun
        self._pages: dict[int, int] = {}

    def feed(self, events: Iterable[Event]) -> None:
        """Count these too."""
        for event in events:
            self._add(event)

    def _add(self, event: Event) -> None:
        at, cpu, what, name, values = event
        self.end = max(self.end, at)
        if what is What.SEND and name.startswith(_BEGINNINGS) and values[1]:
            self._sent[cpu, values[0]] = at, len(values) - 2
        elif what is What.TAKE and values in self._sent:
            self.interrupts[cpu] += 1
            self.counters["nr_tlb_remote_flush_received"] += 1
            sent, targets = self._sent[values]
            if at < sent:
                self.early += 1
            else:
                self.latencies["delivery"].record(at - sent)
                if targets == 1:
                    self.single.append(at - sent)
            self._taken[cpu].append((name, at))
        elif what is What.ENTER and values[0]:
            self._open[cpu].append((name, at))
            self._pages.pop(cpu, None)
        elif what is What.LEAVE and self._open[cpu] and self._open[cpu][-1][0] == name:
            self._leave(at, cpu, name)
        elif what is What.ACKED and (cpu, values[0]) in self._sent:
            sent, _ = self._sent.pop((cpu, values[0]))
            if at >= sent:
                self.latencies["round_trip"].record(at - sent)
        elif what is What.FLUSH:
            reason, pages = values
            if reason in _COUNTED:
                self.counters[_COUNTED[Reason(reason)]] += 1
            elif reason == Reason.REMOTE_SHOOTDOWN:
                self._pages[cpu] = pages
            elif reason in (Reason.LOCAL_SHOOTDOWN, Reason.LOCAL_MM_SHOOTDOWN):
                kind = "all" if pages < 0 else "one"
                self.counters[f"nr_tlb_local_flush_{kind}"] += 1 if pages < 0 else pages
        elif what is What.COUNTER:
            self.counters[name] = values[0]

    def _leave(self, at: int, cpu: int, name: str) -> None:
        _, since = self._open[cpu].pop()
        taken = self._taken[cpu]
        if not taken or taken[0][0] != name:
            return
        taken.pop(0)
        self.latencies["handler"].record(at - since)
        self.handled.append(Handled(at - since, self._pages.pop(cpu, None)))
