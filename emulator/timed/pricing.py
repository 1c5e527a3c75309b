"""The price of every operation, by class: made once from the cost model, looked up at every step.

What depends on more than the class (which tier, which CPU changed the word last, what was answered) has a
function; all else is a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.operations import (
    TABLE,
    FolioCopy,
    FolioXchgAccessTime,
    FolioZero,
    MappedRange,
    Order,
    SplitHugePage,
    Where,
)
from emulator.hardware.operations.table import Price as PriceClass
from emulator.hardware.pte import PSE
from emulator.measure.costs import LINE_ENTRIES, Costs
from emulator.memory.memory import Memory
from emulator.timed.lines import Lines

Price = Callable[[int, Any, Any], int]
"""ns, from the CPU, the operation and its answer."""


def local_prices(costs: Costs) -> dict[type[Any], int]:
    """ns of the operations that concern one CPU alone, user accesses apart."""
    ns = {
        PriceClass.INSTRUCTION: costs.instruction_ns,
        PriceClass.FLUSH: costs.flush_ns,
        PriceClass.INVLPG: costs.invlpg_ns,
        PriceClass.CR3: costs.cr3_ns,
        PriceClass.SWITCH: costs.switch_ns,
    }
    return {kind: ns[row.price] for kind, row in TABLE.items() if row.price in ns}


def memory_prices(costs: Costs, cpus: int, memory: Memory) -> dict[type[Any], int | Price]:
    """ns of memory's operations, or how to find out; page walks apart."""
    lines = Lines(costs, cpus)
    slow_from = memory.folios.zones[0].pages + memory.folios.zones[0].start_pfn
    fast, slow = costs.page_fast_ns, costs.page_slow_ns
    entry = costs.page_table_ns

    def read(cpu: int, operation: Any, answer: Any) -> int:
        return lines.read(cpu, operation[0])

    def change(cpu: int, operation: Any, answer: Any) -> int:
        return lines.change(cpu, operation[0])

    def page(pfn: int) -> int:
        return fast if pfn < slow_from else slow

    def copy(cpu: int, operation: FolioCopy, answer: Any) -> int:
        folio = memory.folios.folios.get(operation.dst)
        one = page(operation.src) + page(operation.dst)
        return one << folio.order if folio is not None else one

    def zero(cpu: int, operation: FolioZero, answer: Any) -> int:
        folio = memory.folios.folios.get(operation.pfn)
        return page(operation.pfn) << folio.order if folio is not None else page(operation.pfn)

    def scan(cpu: int, operation: MappedRange, answer: Any) -> int:
        pages = operation.end - operation.start
        order = memory.page_tables.hpage_order
        if not order:
            return entry * (1 + pages // LINE_ENTRIES)
        # PMDs, and of the page tables below them those that are there.
        tables = len({vpn >> order for vpn, found in answer if not found & PSE})
        return entry * (1 + (pages >> order) + min(tables << order, pages) // LINE_ENTRIES)

    def split(cpu: int, operation: SplitHugePage, answer: bool) -> int:
        return (costs.folio_ns + entry) << memory.page_tables.hpage_order if answer else costs.folio_ns

    def each(cpu: int, operation: FolioXchgAccessTime, answer: int) -> int:
        return costs.folio_ns * len(operation.pfns)

    prices: dict[PriceClass, int | Price] = {
        PriceClass.LINE: change,
        PriceClass.ENTRY: entry,
        PriceClass.SCAN: scan,
        PriceClass.FOLIO: costs.folio_ns,
        PriceClass.FOLIOS: each,
        PriceClass.SPLIT: split,
        PriceClass.RMAP: costs.rmap_ns,
        PriceClass.ALLOCATE: costs.allocate_ns,
        PriceClass.COPY: copy,
        PriceClass.ZERO: zero,
        PriceClass.PAID: 0,
        PriceClass.BROADCAST: costs.invlpgb_ns,
        PriceClass.TLBSYNC: costs.tlbsync_ns,
        PriceClass.TLBI: costs.tlbi_ns,
        PriceClass.DSB: costs.dsb_ns,
    }
    return {
        kind: read if row.price is PriceClass.LINE and row.order is Order.LOAD else prices[row.price]
        for kind, row in TABLE.items()
        if row.where is Where.MEMORY and row.price is not PriceClass.ENGINE
    }
