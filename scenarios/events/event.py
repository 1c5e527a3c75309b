"""What happened on the CPUs of a run, as events: one vocabulary for every engine and for all who show them.

Times are in ns where the engine has a clock, else in steps. An event is small and plain; which values it has
is said with its kind.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class What(IntEnum):
    """The kinds of events. `name` and `values` of each in brackets."""

    ENTER = 0  # a function begins [its name; number of its frame: 0 a task's, 1 and on a handler's]
    LEAVE = 1  # the function that began last ends [its name]
    STEP = 2  # an operation [its words], of explored runs and of recordings only
    SEND = 3  # calls are queued [the function called; the request, whether it is waited for, the targets]
    TAKE = 4  # an interrupt takes a call from its queue [the function called; sender, request]
    ACK = 5  # the call is acknowledged [; sender, request]
    ACKED = 6  # its sender has seen all acknowledgements [; the request]
    FLUSH = 7  # a TLB is flushed [the function; its `Reason`; pages, or TLB_FLUSH_ALL]
    TASK = (
        8  # another task runs [thread, kthread, kswapd or swapper; its pid, which is its CPU's own, its mm]
    )
    COUNTER = 9  # a counter of all CPUs [its name; its value]
    VIOLATION = 10  # a rule breaks [rule and text]
    MOVED = 11  # a folio is moved, its old frame stays for now [; old frame, new frame]
    FREED = 12  # an old frame is free again [; the frame]
    TLB = 13  # what a CPU's TLB has by now [entries in words, a line each; of each whether it is stale]


class Reason(IntEnum):
    """Why a TLB is flushed: enum tlb_flush_reason of Linux (include/linux/mm_types.h of v6.18)."""

    TASK_SWITCH = 0
    REMOTE_SHOOTDOWN = 1
    LOCAL_SHOOTDOWN = 2
    LOCAL_MM_SHOOTDOWN = 3
    REMOTE_SEND_IPI = 4
    REMOTE_WRONG_CPU = 5


class Event(NamedTuple):
    """`at` is when it happened, -1 as `cpu` that it was on none."""

    at: int
    cpu: int
    what: What
    name: str = ""
    values: tuple[int, ...] = ()


_MANY: Final = 1 << 32
_COUNTS: Final = {
    What.ENTER: 1,
    What.TAKE: 2,
    What.ACK: 2,
    What.ACKED: 1,
    What.FLUSH: 2,
    What.TASK: 2,
    What.COUNTER: 1,
    What.MOVED: 2,
    What.FREED: 1,
}


class Judge:
    """Whether events from a file can be what happened on `cpus` CPUs: whoever shows them may rely on it."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._open: list[list[str]] = [[] for _ in range(cpus)]
        self._last = [0] * (cpus + 1)

    def look(self, event: Event) -> None:
        """ValueError, with what is wrong with it, if this cannot come next."""
        at, cpu, what, name, values = event
        if not (0 if what not in _ANYWHERE else -1) <= cpu < self._cpus:
            raise ValueError(f"there is no CPU {cpu}")
        if not self._last[cpu] <= at < 1 << 62:
            raise ValueError(f"its time {at} does not come after {self._last[cpu]}")
        self._last[cpu] = at
        if (what in _COUNTS and len(values) != _COUNTS[what]) or (what is What.SEND and len(values) < 2):
            raise ValueError(f"{what.name} has other values than {list(values)}")
        if what is not What.COUNTER and any(not -1 <= value < _MANY for value in values):
            raise ValueError(f"{what.name} has numbers that are too large or negative")
        named = values[2:] if what is What.SEND else values[:1] if what in (What.TAKE, What.ACK) else ()
        if any(not 0 <= one < self._cpus for one in named):
            raise ValueError(f"{what.name} names a CPU that there is not")
        if what in _CALLS and min(values[:2], default=0) < 0:
            raise ValueError(f"{what.name} has a negative number")
        if what is What.FLUSH:
            Reason(values[0])
        elif what is What.ENTER:
            self._open[cpu].append(name)
        elif what is What.LEAVE and (not self._open[cpu] or self._open[cpu].pop() != name):
            raise ValueError(f"function {name} ends, which had not begun last")


_ANYWHERE: Final = (What.COUNTER, What.VIOLATION)
_CALLS: Final = (What.SEND, What.TAKE, What.ACK, What.ACKED, What.MOVED, What.FREED, What.ENTER)
