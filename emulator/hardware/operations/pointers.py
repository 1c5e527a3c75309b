"""Operations on page-table pages: the upper entries that name them, and entries reached by a pointer to one.

Only machines whose page-table pages are things (`walker_caches`) carry them out. An upper entry stands for a
PMD; whoever has read it has a pointer to the table that it names, wherever that is by then. The tables of a
guest are words.
"""

from __future__ import annotations

from emulator.hardware.operations.places import (
    Touches,
    any_mapping,
    any_pte,
    any_rmap,
    pte,
    pte_if_written,
    reads,
    spte,
    table_pages,
    writes,
)
from emulator.hardware.operations.processor import ALONE_HERE
from emulator.hardware.operations.table import Alone, Answer, Answers, Order, Price, Row, Where


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(table_pages),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(table_pages,),
    touches=Touches((table_pages, any_pte)),
)
class GetPmd(Answers[int]):
    """pmdp_get_lockless: the upper entry of page `vpn`, which names a table, maps a huge page or is 0."""

    mm: int
    vpn: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(table_pages),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(table_pages,),
    touches=Touches(writes=(table_pages, any_pte, any_mapping, any_rmap)),
)
class XchgPmd(Answers[int]):
    """pmdp_get_and_clear (`pmd` 0), pmd_populate, or pud_clear of a shared page of PMDs; the old upper entry.

    A table takes its entries along. The caller holds the lock of the upper table."""

    mm: int
    vpn: int
    pmd: int


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(any_pte),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte,),
    touches=Touches((table_pages, any_pte)),
)
class GetPteIn(Answers[int]):
    """ptep_get(pte_offset_map(&pmd, addr)): the entry of page `vpn` of `mm` in the table that `pmd` names."""

    mm: int
    vpn: int
    pmd: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(any_pte),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(pte,),
    touches=Touches(writes=(table_pages, any_pte, any_mapping, any_rmap)),
)
class XchgPteIn(Answers[int]):
    """ptep_get_and_clear by such a pointer (`pte` 0), or set_pte; the old entry."""

    mm: int
    vpn: int
    pte: int
    pmd: int


@Row(
    Where.MEMORY,
    Order.LOAD,
    reads(table_pages),
    Price.FOLIO,
    Answer.VALUE,
    carries=(table_pages,),
)
class TableCount(Answers[int]):
    """page_count of the table that `pmd` names."""

    pmd: int


@Row(Where.MEMORY, Order.LOCKED, writes(table_pages), Price.FOLIO, carries=(table_pages,))
class PutTable(Answers[None]):
    """pte_free, __tlb_remove_table or put_page: a reference to the table that `pmd` names goes; with the last
    one the page is free."""

    pmd: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(table_pages),
    Price.ENTRY,
    carries=(table_pages,),
    touches=Touches(writes=(table_pages, any_pte, any_mapping, any_rmap)),
)
class PgtableDeposit(Answers[None]):
    """The end of __collapse_huge_page_copy, then pgtable_trans_huge_deposit: what is left in the table that
    `pmd` names goes, and the table is kept for the huge page at `vpn`."""

    mm: int
    vpn: int
    pmd: int


@Row(
    Where.MEMORY,
    Order.LOCKED,
    writes(table_pages),
    Price.ENTRY,
    Answer.ENTRY,
    carries=(table_pages,),
)
class PgtableWithdraw(Answers[int]):
    """pgtable_trans_huge_withdraw: the table that collapse has deposited for the huge page at `vpn`, as an
    upper entry; 0 if there is none."""

    mm: int
    vpn: int


@Row(
    Where.CPU, Order.NONE, ALONE_HERE, Price.INSTRUCTION, Answer.VALUE, second_half=True, alone=Alone.UNWALKED
)
class CachedPmd(Answers[int]):
    """The upper entry of page `vpn` that the CPU's paging-structure cache has; 0 if it has none."""

    vpn: int


@Row(
    Where.MEMORY,
    Order.WALK,
    reads(table_pages),
    Price.ENTRY,
    Answer.ENTRY,
    second_half=True,
    notation="walks: {0.vpn:#x} is in table {1}",
    touches=Touches((table_pages, any_pte)),
)
class WalkPmd(Answers[int]):
    """The page walker reads the upper entry of page `vpn`, and caches it; 0 if it names no table."""

    mm: int
    vpn: int


@Row(
    Where.MEMORY,
    Order.WALK,
    reads(any_pte),
    Price.ENTRY,
    Answer.ENTRY,
    second_half=True,
    touches=Touches((table_pages,), (pte_if_written,), (any_pte,)),
)
class WalkPte(Answers[int]):
    """As Walk, of a walker that has the upper entry `pmd`, which may be an old one."""

    mm: int
    vpn: int
    write: bool
    pmd: int


@Row(
    Where.MEMORY,
    Order.WALK,
    reads(spte),
    Price.ENTRY,
    Answer.ENTRY,
    second_half=True,
    notation="walks the guest's table for {0.vpn:#x}: {1}",
)
class WalkSpte(Answers[int]):
    """The page walker, for a guest: the entry of page `vpn` in one of KVM's tables, or 0."""

    mm: int
    vpn: int
    root: int
    write: bool
