"""Walks of page-table pages: nobody, hardware or kernel, may read one that has been freed.

Until it is used again such a page holds what it held, and after that anything. So the walk itself is the
mistake, whatever it finds.
"""

from __future__ import annotations

from typing import Any

from emulator.checks.onlooker import APART, Check, Meeting
from emulator.checks.violation import MAX_KEPT, Violation
from emulator.hardware import operations as ops
from emulator.hardware.operations import Operation
from emulator.hardware.operations.places import TABLE_PAGES
from emulator.memory.table_pages import TablePages, table_of

FREED_TABLE = "walk of a freed page table"

_MEETS = Meeting((TABLE_PAGES,), (), (TABLE_PAGES,))
_BY_POINTER = frozenset({ops.WalkPte, ops.GetPteIn, ops.XchgPteIn})
_OF_TABLES = _BY_POINTER | {ops.WalkPmd, ops.GetPmd, ops.XchgPmd, ops.PutTable, ops.TableCount}


class TableWalks(Check):
    """Watches whoever has a pointer to a page-table page. What it goes by is memory's."""

    def __init__(self, tables: TablePages) -> None:
        super().__init__()
        self._tables = tables

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """Judge one performed operation."""
        if type(operation) in _BY_POINTER:
            pointer: Any = operation
            table = table_of(pointer.pmd)
            if not self._tables.allocated(table) and len(self.violations) < MAX_KEPT:
                who = "the page walker" if type(operation) is ops.WalkPte else "the kernel"
                text = (
                    f"{who} looks for page {pointer.vpn:#x} of mm {pointer.mm} in page table {table}, which "
                    f"{'has been freed' if table else 'is none'}"
                )
                self.violations.append(Violation(FREED_TABLE, cpu, text))

    def meets(self, cpu: int, operation: Operation, answer: Any) -> Meeting:
        """Which tables there are is memory's to say; on machines where somebody walks them it counts."""
        return _MEETS if type(operation) in _OF_TABLES else APART
