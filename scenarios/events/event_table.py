"""Events as a table: comma-separated values, one row each."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TextIO

from scenarios.events.event import Event
from scenarios.events.event_file import EventHeader


def write_csv(header: EventHeader, events: Iterable[Event], into: TextIO) -> int:
    """Write the table; how many rows it has. A column's name has the unit; values are set apart by spaces."""
    table = csv.writer(into, lineterminator="\n")
    table.writerow([f"at_{header.unit}", "cpu", "what", "name", "values"])
    count = 0
    for count, (at, cpu, what, name, values) in enumerate(events, start=1):  # noqa: B007
        table.writerow([at, cpu, what.name.lower(), name, " ".join(map(str, values))])
    return count
