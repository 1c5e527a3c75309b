"""Steps of a run as one HTML page: a lane for each CPU, arrows for calls, and TLBs as they are at each step.

The page is one file that asks the network for nothing. It steps with the arrow keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final, TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from typing_extensions import TypedDict

from scenarios.events.event import Event, What
from scenarios.events.event_file import EventHeader

MOST_STEPS: Final = 3000
"""More are not drawn: nobody follows them one by one."""


class NotDrawn(ValueError):
    """There are no steps, or too many; the text says which."""


def write_page(header: EventHeader, events: Iterable[Event], into: TextIO) -> int:
    """Write the page; how many steps it has. NotDrawn if it would have none, or more than MOST_STEPS."""
    steps = _steps(header.cpus, events)
    if not steps:
        raise NotDrawn("it has no steps; those of a witness or of a live run's recording are drawn")
    page = Environment(
        loader=PackageLoader("scenarios.events", "pages"), autoescape=True, undefined=StrictUndefined
    ).get_template("interleaving.html")
    groups = [list(group) for _, group in groupby(steps, key=lambda step: (step["cpu"], step["path"]))]
    into.write(page.render(header=header, groups=groups, steps=steps, arrows=_arrows(steps)))
    return len(steps)


class Step(TypedDict):
    """One step, as the page has it: `path` are the functions that it is in, `calls` what it has to do with
    calls, `tlbs` the entries of TLBs that are others after it, each with whether it is stale."""

    number: int
    cpu: int
    text: str
    path: tuple[str, ...]
    calls: list[tuple[What, Any]]
    broken: list[str]
    tlbs: dict[int, list[tuple[str, int]]]


def _steps(cpus: int, events: Iterable[Event]) -> list[Step]:
    steps: list[Step] = []
    paths: list[list[str]] = [[] for _ in range(cpus)]
    tlbs: dict[int, list[tuple[str, int]]] = {}  # as they are at first
    for event in events:
        _, cpu, what, name, values = event
        if what is What.ENTER:
            paths[cpu].append(name)
        elif what is What.LEAVE:
            paths[cpu].pop()
        elif what is What.STEP:
            if len(steps) == MOST_STEPS:
                raise NotDrawn(f"more than {MOST_STEPS:,} steps; migrc shrink makes fewer of them")
            path = tuple(paths[cpu])
            number = len(steps) + 1
            steps.append(Step(number=number, cpu=cpu, text=name, path=path, calls=[], broken=[], tlbs=tlbs))
            tlbs = {}
        elif what is What.TLB:
            (steps[-1]["tlbs"] if steps else tlbs)[cpu] = list(zip(name.split("\n"), values, strict=False))
        elif steps:
            step = steps[-1]
            if what is What.VIOLATION:
                step["broken"].append(name)
            elif what in (What.SEND, What.TAKE, What.ACK, What.ACKED):
                step["calls"].append((what, values))
    return steps


def _arrows(steps: list[Step]) -> list[tuple[int, int, str]]:
    """From which step to which, and what goes: a call to who takes it, an acknowledgement to who waits."""
    sent: dict[tuple[int, int], int] = {}
    acknowledged: dict[tuple[int, int], list[int]] = {}
    arrows = []
    for step in steps:
        number = step["number"]
        for what, values in step["calls"]:
            if what is What.SEND:
                sent[step["cpu"], values[0]] = number
            elif what is What.TAKE and values in sent:
                arrows.append((sent[values], number, "call"))
            elif what is What.ACK:
                acknowledged.setdefault(values, []).append(number)
            elif what is What.ACKED:
                arrows += [(one, number, "ack") for one in acknowledged.pop((step["cpu"], values[0]), [])]
    return arrows
