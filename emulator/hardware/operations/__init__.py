"""The operation vocabulary: the only things that a simulated program may await.

Each operation is the largest step that the kernel itself makes atomic with respect to whatever
races with it. A program yields an operation, an engine carries it out and resumes the program;
nothing here knows which engine that is. Fields are plain numbers, names and tuples, so that an operation can
travel. The files of this room hold operations with their rows of the table, and nothing else.
"""

from __future__ import annotations

from typing import Any

from emulator.hardware.operations.coordination import *
from emulator.hardware.operations.invalidation import *
from emulator.hardware.operations.physical_memory import *
from emulator.hardware.operations.pointers import *
from emulator.hardware.operations.processor import *
from emulator.hardware.operations.table import TABLE as TABLE
from emulator.hardware.operations.table import Operation as Operation
from emulator.hardware.operations.table import Order as Order
from emulator.hardware.operations.table import Where as Where
from emulator.hardware.operations.table import describe as describe
from emulator.hardware.operations.table import handlers_of as handlers_of
from emulator.hardware.operations.virtual_memory import *

# An interrupt is taken between instructions only; these are an instruction's second half.
SECOND_HALVES = frozenset(kind for kind, row in TABLE.items() if row.second_half)

# Numbers for the wire, in the table's order.
CLASSES: tuple[type[Any], ...] = tuple(TABLE)
NUMBERS: dict[type[Any], int] = {kind: number for number, kind in enumerate(CLASSES)}
