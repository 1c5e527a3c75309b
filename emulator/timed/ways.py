"""How long it is from CPU to CPU: an interrupt sent, delivered, a cache line fetched. In ns, [from][to]."""

from __future__ import annotations

from typing import NamedTuple

from emulator.measure.costs import Costs

Table = list[list[int]]


class Ways(NamedTuple):
    """All of them. `shortest` is the least time in which an interrupt gets from one CPU to another."""

    send: Table
    deliver: Table
    line: Table
    shortest: int


def ways_of(costs: Costs, cpus: int) -> Ways:
    """What a cost model says of so many CPUs."""
    numbers = range(cpus)
    send, deliver, line = (
        [[way(one, other, cpus) for other in numbers] for one in numbers]
        for way in (costs.send, costs.deliver, costs.line)
    )
    times = [send[one][to] + deliver[one][to] for one in numbers for to in numbers if one != to]
    return Ways(send, deliver, line, min(times, default=0))
