"""The price of every operation, by class: made once from the cost model, looked up at every step.

What depends on more than the class (which tier, which CPU changed the word last, what was answered) has a
function; all else is a number. An operation that nobody has priced costs what touching a folio costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.operations import (
    TABLE,
    AllocPages,
    CmpxchgPte,
    FindVma,
    FlushTlb,
    FlushTlbOne,
    FolioCopy,
    FolioRmap,
    FolioZero,
    GetPte,
    LoadCr3,
    MappedRange,
    Order,
    PmdNone,
    ReadFrame,
    SetPte,
    SplitHugePage,
    SwitchTo,
    TestAndClearYoung,
    TryToMigratePte,
    WaitPte,
    Where,
    WriteFrame,
    XchgPte,
)
from emulator.hardware.pte import PSE
from emulator.measure.costs import LINE_ENTRIES, Costs
from emulator.memory.memory import Memory
from emulator.timed.lines import Lines

Price = Callable[[int, Any, Any], int]
"""ns, from the CPU, the operation and its answer."""


def local_prices(costs: Costs) -> dict[type[Any], int]:
    """ns of the operations that concern one CPU alone, user accesses apart."""
    found = {kind: costs.instruction_ns for kind, row in TABLE.items() if row.where is Where.CPU}
    return found | {
        FlushTlb: costs.flush_ns,
        FlushTlbOne: costs.invlpg_ns,
        LoadCr3: costs.cr3_ns,
        SwitchTo: costs.switch_ns,
    }


def memory_prices(costs: Costs, cpus: int, memory: Memory) -> dict[type[Any], int | Price]:
    """ns of memory's operations, or how to find out; page walks apart."""
    lines = Lines(costs, cpus)
    slow_from = memory.folios.zones[0].pages + memory.folios.zones[0].start_pfn
    fast, slow = costs.page_fast_ns, costs.page_slow_ns
    entry = costs.page_table_ns

    def read_word(cpu: int, operation: Any, answer: Any) -> int:
        return lines.read(cpu, operation.word)

    def change_word(cpu: int, operation: Any, answer: Any) -> int:
        return lines.change(cpu, operation.word)

    def read_name(cpu: int, operation: Any, answer: Any) -> int:
        return lines.read(cpu, operation.name)

    def change_name(cpu: int, operation: Any, answer: Any) -> int:
        return lines.change(cpu, operation.name)

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

    prices: dict[type[Any], int | Price] = {}
    for kind, row in TABLE.items():
        if row.where is not Where.MEMORY:
            continue
        fields = kind._fields
        reads = row.order is Order.LOAD
        if "word" in fields:
            prices[kind] = read_word if reads else change_word
        elif "name" in fields:
            prices[kind] = read_name if reads else change_name
        else:
            prices[kind] = costs.folio_ns
    entries = (
        GetPte,
        SetPte,
        XchgPte,
        CmpxchgPte,
        TryToMigratePte,
        WaitPte,
        TestAndClearYoung,
        FindVma,
        PmdNone,
    )
    prices.update(dict.fromkeys(entries, entry))
    prices.update(
        {
            # The access itself was paid for when it was translated.
            ReadFrame: 0,
            WriteFrame: 0,
            FolioCopy: copy,
            FolioZero: zero,
            FolioRmap: costs.rmap_ns,
            AllocPages: costs.allocate_ns,
            MappedRange: scan,
            SplitHugePage: split,
        }
    )
    return prices
