"""What the guest's second serial line says: traces of cases, made into counts, and the count of the majority.

A line is an event as tracefs prints it, from the CPU on. What each probe is stands in `guest.c`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from scenarios.linux.cases import Case, Counted, cell

_EVENT: Final = re.compile(r"\[(\d+)\].*? \d+(?:\.\d+)?: (\w+): (.*)")
_PROBED: Final = re.compile(r"(\w+)=(0x[0-9a-f]+|\d+)")
_FLUSHED: Final = re.compile(r"pages:(-?\d+) reason:.*\((\d)\)")
_ALL: Final = (1 << 64) - 1
_PMD_SHIFT: Final = 21
_PAGE: Final = 4096

# include/linux/mm_types.h: enum tlb_flush_reason
_ON_TASK_SWITCH, _REMOTE_SHOOTDOWN, _LOCAL_SHOOTDOWN, _LOCAL_MM_SHOOTDOWN, _REMOTE_SEND_IPI = range(5)


class BrokenTrace(ValueError):
    """The guest's line is not what the guest writes: it died, or a kernel's probes are others."""


class Traced(NamedTuple):
    """One case as it ran once; `counted` None if it failed."""

    operation: str
    configuration: str
    counted: Counted | None


def read_trace(lines: Iterable[str]) -> Iterator[Traced]:
    """Every case that the guest has run. Raises BrokenTrace; a trace that ends early is one."""
    events: list[str] = []
    name: tuple[str, str] | None = None
    for line in lines:
        words = line.split()
        if words[:1] == ["CASE"] and len(words) == 3:
            name, events = (words[1], words[2]), []
        elif words[:1] == ["DONE"] and name is not None:
            on = _initiator(events) if name[0].startswith("exit") else 0
            yield Traced(*name, count_events(events, on) if words[1] == "0" else None)
            name = None
        elif words == ["OVER"]:
            return
        elif words:
            events.append(line)
    raise BrokenTrace("the guest did not come to its end")


def _initiator(lines: Iterable[str]) -> int:
    """Of a process that exits it is the last of its threads that gives the memory back: the CPU of the first
    flush call between the markers, 0 without any."""
    begun = False
    for line in lines:
        event = _EVENT.match(line)
        if event and event[2] == "tracing_mark_write":
            begun = event[3].strip() == "op"
        elif event and begun and event[2] == "ranged":
            return int(event[1])
    return 0


def count_events(lines: Iterable[str], initiator: int = 0) -> Counted:
    """What happened between the markers `op`, `wake` and `end`, by calls of the CPU `initiator`.

    A flush that a CPU is asked for is told by what comes next on that CPU: it drops something (tlb_flush),
    leaves the mm (switch_mm_irqs_off without a task), or does nothing.
    """
    calls: Counter[str] = Counter()
    local: Counter[str] = Counter()
    switch: Counter[str] = Counter()
    recv: dict[str, Counter[str]] = {}
    asked: dict[int, int] = {}  # CPU that has been asked for a flush -> by which CPU
    send = 0
    phase = ""

    def did(cpu: int, what: str) -> None:
        by = asked.pop(cpu, None)
        if by == cpu == initiator:
            local[what] += 1
        elif by == initiator:
            recv.setdefault(str(cpu), Counter())[what] += 1

    for line in lines:
        event = _EVENT.match(line)
        if event is None:
            raise BrokenTrace(f"{line.strip()[:80]!r} is no event")
        cpu, kind, text = int(event[1]), event[2], event[3]
        if kind == "tracing_mark_write":
            if text.strip() == "end":
                break
            phase = text.strip()
            continue
        probed = {key: int(value, 0) for key, value in _PROBED.findall(text)}
        if kind == "asked" and phase == "op":
            did(cpu, "none")
            asked[cpu] = probed["by"]
        elif kind == "switched" and cpu in asked and not probed["task"]:
            did(cpu, "lazy")
        elif kind == "ranged" and phase == "op" and cpu == initiator:
            calls[_call(probed)] += 1
        elif kind == "batched" and phase == "op" and cpu == initiator:
            calls["batch"] += 1
        elif kind == "tlb_flush":
            flushed = _FLUSHED.match(text)
            if flushed is None:
                raise BrokenTrace(f"{text[:80]!r} is no flush")
            pages, reason = int(flushed[1]), int(flushed[2])
            if reason == _ON_TASK_SWITCH:
                switch[f"{phase}{cpu}"] += 1
            elif reason != _REMOTE_SEND_IPI:
                did(cpu, "full" if pages < 0 else str(pages))
            elif cpu == initiator and phase == "op":
                send += 1
    for cpu in list(asked):
        did(cpu, "none")
    received = {cpu: dict(done) for cpu, done in sorted(recv.items())}
    return Counted(dict(calls), send, received, dict(local), dict(switch))


def _call(probed: dict[str, int]) -> str:
    pages = "full" if probed["end"] == _ALL else str((probed["end"] - probed["start"]) // _PAGE)
    stride = "/pmd" if probed["stride"] == _PMD_SHIFT else ""
    return pages + stride + ("+ft" if probed["tables"] & 1 else "")


def majority(traced: Iterable[Traced]) -> tuple[list[Case], list[tuple[str, str]]]:
    """A case for each operation and configuration, with the count that most runs had; those without any."""
    runs: dict[tuple[str, str], list[Counted]] = {}
    for one in traced:
        found = runs.setdefault((one.operation, one.configuration), [])
        if one.counted is not None:
            found.append(one.counted)
    cases = []
    for (operation, configuration), found in runs.items():
        if found:
            alike = Counter(_without_bystanders(one) for one in found)
            text, count = alike.most_common(1)[0]
            best = next(one for one in found if _without_bystanders(one) == text)
            cases.append(Case(operation, configuration, best, (count, len(found))))
    return cases, [key for key, found in runs.items() if not found]


def _without_bystanders(counted: Counted) -> str:
    """For comparing runs: all but what else was switched to meanwhile, which is not twice the same."""
    woken = {key: count for key, count in counted.switch.items() if key.startswith("wake")}
    return " ".join(cell(column) for column in counted._replace(switch=woken))
