"""Writes operations.md, beside this file, from the table of operations: `python docs/operations.py`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from emulator.hardware.operations import TABLE
from emulator.hardware.operations.places import KeyOf
from emulator.hardware.operations.table import Order, Row

HEAD = """\
# Operations

All that a simulated program may await. Made from the table in `emulator/hardware/operations/` by
`python docs/operations.py`; [architecture.md](architecture.md) says what an operation is.

* **Order** is what it is to the ordering rules of an architecture (`emulator/hardware/ordering.py`).
* **Meets others at**: where other CPUs can tell whether it came before theirs. A stressed CPU stands still
  before such operations.
* **Carries**: what brings knowledge of earlier events from one CPU to another, for checks of happens-before.
* **Waits for** what has to change before it is enabled; it is never carried out on its CPU's behalf.
* **Price**: what it costs in a timed run, see `emulator/timed/pricing.py`."""
COLUMNS = (
    "Operation",
    "What it is",
    "By",
    "Order",
    "Meets others at",
    "Carries",
    "Waits for",
    "Answers",
    "Price",
)


def text() -> str:
    """The whole file."""
    parts = [HEAD]
    for module, kinds in groupby(TABLE, key=lambda kind: kind.__module__):
        parts.append(f"\n## {_first_paragraph(sys.modules[module]).removesuffix('.')}\n")
        parts.append(_line(COLUMNS))
        parts.append(_line(["---"] * len(COLUMNS)))
        parts.extend(_line(_cells(kind, TABLE[kind])) for kind in kinds)
    return "\n".join(parts) + "\n"


def _cells(kind: Any, row: Row) -> list[str]:
    halves = ["second half of an instruction"] if row.second_half else []
    return [
        f"`{kind.__name__}({', '.join(kind._fields)})`",
        "; ".join([_first_paragraph(kind).removesuffix("."), *halves]),
        row.where.value,
        "" if row.order is Order.NONE else row.order.name.lower(),
        _place(row),
        _said(row.carries),
        _said([row.waits] if row.waits is not None else []),
        row.answer.value,
        row.price.value,
    ]


def _place(row: Row) -> str:
    place = row.place
    if place.why:
        return f"nowhere: {place.why}"
    both = (("reads", place.reads), ("writes", place.writes))
    return "; ".join(f"{verb} {_said(keys)}" for verb, keys in both if keys)


def _said(keys: Iterable[KeyOf]) -> str:
    return ", ".join(inspect.getdoc(key) or "" for key in keys)


def _first_paragraph(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(text(), encoding="utf-8")
