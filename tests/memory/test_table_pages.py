"""Page-table pages: where one is, who reads it by a pointer, and when it is none any more."""

from __future__ import annotations

from emulator.checks.coherence import Coherence
from emulator.checks.table_walks import FREED_TABLE, TableWalks
from emulator.hardware import operations as ops
from emulator.hardware.operations import Operation
from emulator.hardware.pte import ACCESSED, PRESENT, mk_pte
from emulator.memory.folios import TABLE_FREED_TWICE, Folio, Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, Vma
from emulator.memory.table_pages import ANYTHING, TablePages, pmd_of, table_of
from emulator.memory.zone import Watermarks

MM, OTHER = 1, 2
OLD, NEW = 0x200, 0x400
TABLE = 0x200  # pages that one maps
ENTRY = mk_pte(1, PRESENT | ACCESSED)


def machine() -> tuple[Memory, TablePages]:
    """Frame 1 is page OLD of mm 1."""
    memory = Memory([Tier(4, Watermarks(0, 0, 0))], walker_caches=True)
    tables = memory.page_tables
    assert isinstance(tables, TablePages)
    memory.folios.zones[0].rmqueue(0)
    folio = memory.folios.folios[1] = Folio(1, 0, 0)
    tables.put(MM, OLD, ENTRY)
    folio.rmap[MM, OLD] = ENTRY
    tables.mm(MM).areas = [Vma(OLD, OLD + TABLE, VM_READ, 0), Vma(NEW, NEW + TABLE, VM_READ, 0)]
    return memory, tables


def test_a_table_is_made_for_the_first_entry_and_has_one_reference() -> None:
    memory, _ = machine()
    pmd = memory.execute(0, ops.GetPmd(MM, OLD + 7))
    assert table_of(pmd) == 1 and memory.execute(0, ops.TableCount(pmd)) == 1
    assert memory.execute(0, ops.GetPmd(MM, NEW)) == 0
    memory.execute(0, ops.SetPte(MM, NEW, mk_pte(0, PRESENT)))
    assert table_of(memory.execute(0, ops.GetPmd(MM, NEW))) == 2


def test_a_table_takes_its_entries_and_their_reverse_mappings_along() -> None:
    memory, _ = machine()
    pmd = memory.execute(0, ops.XchgPmd(MM, OLD, 0))
    assert memory.execute(0, ops.GetPte(MM, OLD)) == 0
    assert memory.execute(1, ops.GetPteIn(MM, OLD, pmd)) == ENTRY, "who has a pointer still gets there"
    assert memory.execute(0, ops.XchgPmd(MM, NEW, pmd)) == 0
    assert memory.execute(0, ops.GetPte(MM, NEW)) == ENTRY
    assert memory.folios.folios[1].rmap == {(MM, NEW): ENTRY}
    assert memory.execute(1, ops.XchgPteIn(MM, OLD, 0, pmd)) == ENTRY, "by its old address, too"
    assert memory.execute(0, ops.GetPte(MM, NEW)) == 0 and not memory.folios.folios[1].rmap


def test_entries_change_in_a_table_that_is_nowhere() -> None:
    memory, _ = machine()
    pmd = memory.execute(0, ops.XchgPmd(MM, OLD, 0))
    assert memory.execute(1, ops.XchgPteIn(MM, OLD, 0, pmd)) == ENTRY
    assert not memory.folios.folios[1].rmap
    memory.execute(0, ops.XchgPmd(MM, NEW, pmd))
    assert memory.execute(0, ops.GetPte(MM, NEW)) == 0


def test_a_shared_table_is_one_for_both_and_outlives_the_first() -> None:
    memory, tables = machine()
    tables.share(OTHER, NEW, MM, OLD)
    pmd = memory.execute(0, ops.GetPmd(OTHER, NEW))
    assert memory.execute(0, ops.GetPte(OTHER, NEW)) == ENTRY and tables.entry(OTHER, NEW) == ENTRY
    assert memory.execute(0, ops.TableCount(pmd)) == 2
    assert memory.execute(0, ops.XchgPmd(MM, OLD, 0)) == pmd
    memory.execute(0, ops.PutTable(pmd))
    assert tables.allocated(1) and memory.execute(0, ops.GetPte(MM, OLD)) == 0
    assert memory.execute(0, ops.XchgPte(OTHER, NEW, 0)) == ENTRY, "it is at home with the one who is left"


def test_state_and_restore() -> None:
    memory, tables = machine()
    tables.share(OTHER, NEW, MM, OLD)
    states = [memory.state()]
    for operation in (ops.XchgPmd(MM, OLD, 0), ops.PutTable(pmd_of(1)), ops.XchgPmd(OTHER, NEW, 0)):
        memory.execute(0, operation)
        states.append(memory.state())
    assert len(set(states)) == 4
    for state in states:
        memory.restore(state)
        assert memory.state() == state


def test_who_frees_a_table_twice_is_told() -> None:
    memory, _ = machine()
    memory.execute(0, ops.PutTable(pmd_of(1)))
    memory.execute(0, ops.PutTable(pmd_of(1)))
    assert [rule for rule, _ in memory.folios.faults] == [TABLE_FREED_TWICE]


def watched(*operations: Operation) -> list[str]:
    """The rules that a walk breaks, each after the operations before it."""
    memory, tables = machine()
    checks = [TableWalks(tables), Coherence(memory)]
    for operation in operations:
        answer = memory.execute(0, operation)
        for check in checks:
            check.observe(0, operation, answer)
    return [violation.rule for check in checks for violation in check.violations]


def test_a_walk_of_a_freed_table_breaks_a_rule_whoever_walks() -> None:
    gone = (ops.XchgPmd(MM, OLD, 0), ops.PutTable(pmd_of(1)))
    assert watched(*gone, ops.GetPteIn(MM, OLD, pmd_of(1))) == [FREED_TABLE]
    assert watched(*gone, ops.XchgPteIn(MM, OLD, 0, pmd_of(1))) == [FREED_TABLE]
    assert FREED_TABLE in watched(*gone, ops.WalkPte(MM, OLD, False, pmd_of(1)))


def test_a_walk_of_a_table_that_is_elsewhere_or_nowhere_breaks_none() -> None:
    assert not watched(ops.XchgPmd(MM, OLD, 0), ops.GetPteIn(MM, OLD, pmd_of(1)))
    moved = (ops.XchgPmd(MM, OLD, 0), ops.XchgPmd(MM, NEW, pmd_of(1)))
    assert not watched(*moved, ops.WalkPte(MM, OLD, False, pmd_of(1)))


def test_a_page_used_through_a_table_that_has_moved_is_still_the_page() -> None:
    used = (ops.WalkPte(MM, OLD, False, pmd_of(1)), ops.ReadFrame(MM, OLD, 1))
    assert not watched(ops.XchgPmd(MM, OLD, 0), *used)


def test_what_a_freed_table_holds_is_taken_for_an_entry() -> None:
    memory, _ = machine()
    memory.execute(0, ops.XchgPmd(MM, OLD, 0))
    memory.execute(0, ops.PutTable(pmd_of(1)))
    assert memory.execute(0, ops.WalkPte(MM, OLD, False, pmd_of(1))) == ANYTHING
