"""The paging-structure cache: what drops an upper entry, on x86 and where an address reaches leaves only."""

from __future__ import annotations

import pytest

from emulator.hardware.pte import KERNEL_PAGE, PRESENT, mk_pte
from emulator.hardware.tlb import GLOBAL, TlbShape
from emulator.hardware.walker_cache import WalkerTlb

PAGE, NEAR, FAR = 0x200, 0x2FF, 0x400  # two in one table, one in another
PMD = 0x5003


def cache(leaf_only: bool = False) -> WalkerTlb:
    made = WalkerTlb(TlbShape(16, 4, 16, 4), leaf_only=leaf_only)
    made.insert_pmd(1, PAGE, PMD)
    made.insert_pmd(2, PAGE, PMD)
    return made


def test_it_holds_for_all_pages_of_the_table_and_one_pcid() -> None:
    made = cache()
    assert made.pmd(1, NEAR) == PMD
    assert made.pmd(1, FAR) == made.pmd(3, PAGE) == 0


def test_a_flush_of_the_pcid_drops_it() -> None:
    made = cache()
    made.flush_pcid(1)
    assert (made.pmd(1, PAGE), made.pmd(2, PAGE)) == (0, PMD)


def test_a_flush_of_everything_drops_it() -> None:
    made = cache()
    made.flush_all()
    assert made.pmd(1, PAGE) == made.pmd(2, PAGE) == 0


@pytest.mark.parametrize("leaf_only", [False, True])
def test_invlpg_of_any_page_drops_all_of_the_pcid_and_sfence_with_an_address_none(leaf_only: bool) -> None:
    made = cache(leaf_only)
    made.flush_one(1, FAR)
    assert (made.pmd(1, PAGE), made.pmd(2, PAGE)) == (PMD if leaf_only else 0, PMD)


@pytest.mark.parametrize("leaf_only", [False, True])
def test_a_fault_drops_that_of_its_address(leaf_only: bool) -> None:
    made = cache(leaf_only)
    made.insert_pmd(1, FAR, PMD)
    made.fault(1, NEAR)
    assert (made.pmd(1, PAGE), made.pmd(1, FAR)) == (PMD if leaf_only else 0, PMD)


def test_it_is_part_of_the_state() -> None:
    made = cache()
    before = made.state()
    made.insert_pmd(1, FAR, PMD)
    assert made.state() != before


def test_no_pcid_s_flush_drops_a_global_entry_but_its_upper_one() -> None:
    made = cache()
    made.insert(GLOBAL, KERNEL_PAGE, mk_pte(1, PRESENT))
    made.insert_pmd(GLOBAL, KERNEL_PAGE, PMD)
    made.flush_pcid(1)
    assert made.peek(GLOBAL, KERNEL_PAGE) and not made.pmd(GLOBAL, KERNEL_PAGE)
    made.flush_one(GLOBAL, KERNEL_PAGE)
    assert not made.peek(GLOBAL, KERNEL_PAGE)


def test_where_invlpg_misses_it_leaves_global_entries_while_pcids_are_used() -> None:
    made = WalkerTlb(TlbShape(16, 4, 16, 4), invlpg_miss=True)
    made.insert(GLOBAL, KERNEL_PAGE, mk_pte(1, PRESENT))
    made.insert(1, PAGE, mk_pte(2, PRESENT))
    made.flush_one(GLOBAL, KERNEL_PAGE)
    made.flush_one(1, PAGE)
    assert made.peek(GLOBAL, KERNEL_PAGE) and not made.peek(1, PAGE)
    made.pcide = False
    made.flush_one(GLOBAL, KERNEL_PAGE)
    assert not made.peek(GLOBAL, KERNEL_PAGE)
