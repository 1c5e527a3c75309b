"""Bugs around page-table pages: freed, moved or shared while somebody still walks them."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus import walkers as tests

_ONE_LEVEL = "of the levels above the page table one is followed, which stands for all of them"

TABLE_BY_ADDRESS = Bug(
    name="riscv-table-by-address",
    title="riscv flushes for a freed page table by address",
    kinds=("PF", "MF"),
    story="CPU 0 (munmap) frees a page table and sends SFENCE.VMA with an address to the CPUs of the mm. "
    "That form orders accesses to leaf entries only: the walker of CPU 1 keeps the upper entry that "
    "it has cached, and walks the page that was the table.",
    affected="v6.8-rc1 (c5e9b2c2ae82)",
    source="the commit's mail and its discussion, by Alexandre Ghiti, 28 January 2024",
    fix="97cf301fa42e",
    test=tests.FREED,
    before="mistake:tables-by-address",
)

NOT_INVALIDATED = Bug(
    name="tables-not-invalidated",
    title="Page tables are freed by RCU's fallback before any TLB is told",
    kinds=("PF", "MF"),
    story="CPU 0 (munmap) frees a page table where tables wait for walkers without locks "
    "(HAVE_RCU_TABLE_FREE). There is no page for a batch of them: it interrupts every CPU, which ends "
    "such walks, and frees the table. The gather will flush, later. CPU 1's walker goes through the "
    "upper entry that it has cached.",
    affected="x86 with paravirtual flushes, v4.15 to v4.18",
    source="Peter Zijlstra and Nick Piggin on linux-mm, August 2018",
    fix="d86564a2f085",
    test=tests.FREED_BY_GUEST,
    before="mistake:tables-without-invalidation",
    left_out=_ONE_LEVEL,
)

NESTED = Bug(
    name="nested-gather-forgets",
    title="Who gathers beside another one forgets that it has freed page tables",
    kinds=("PF", "FL"),
    story="CPU 0 (munmap) has freed a page table when CPU 1 begins to gather on the same mm. tlb_finish_mmu "
    "of CPU 0 sees that it is not alone, resets what it knows and flushes its range again: on x86 "
    "without the lazy CPUs, on arm64 the last level only. A lazy CPU's walker goes through the freed "
    "table.",
    affected="v4.14 to v5.1",
    source="the commit, 7a30df49f63ad92318ddf1f7498d1129a77dd4bd",
    fix="7a30df49f63a",
    test=tests.NESTED,
    before="mistake:nested-gather-forgets",
    left_out="arm64's invalidation of the last level alone",
)

COLLAPSE_LAZY = Bug(
    name="collapse-spares-the-lazy",
    title="collapse does not tell lazy CPUs that a page table goes",
    kinds=("PF", "TS"),
    story="CPU 0 (collapse) takes a page table out of its PMD and calls flush_tlb_range, which says that no "
    "tables were freed. CPU 1 is lazy and is left out. The table is deposited, and freed when the "
    "huge page is unmapped; CPU 1's walker still goes through it.",
    affected="x86 since v4.20, fixed in v6.15 and v6.6.87",
    source="the CVE's record",
    fix="3ef938c35035",
    cve="CVE-2025-22045",
    test=tests.COLLAPSE_LAZY,
    before="mistake:collapse-spares-the-lazy",
)

COLLAPSE_GUP = Bug(
    name="collapse-gup-fast",
    title="collapse does not wait for get_user_pages_fast",
    kinds=("PF",),
    story="CPU 1 (get_user_pages_fast, interrupts off) has read a PMD and is about to read the table. CPU 0 "
    "(collapse) clears the PMD and flushes; where that does not interrupt, CPU 1 walks on. The table "
    "is deposited, and freed with the huge page. That the PMD is looked at again (70cbc3cc78a9) comes "
    "too late for the walk.",
    affected="before v6.1",
    source="Jann Horn's mails of November 2022, with backports",
    fix="2ba99c5e0881",
    test=tests.COLLAPSE_GUP,
    before="mistake:collapse-without-sync",
)

UNSHARE_FLUSH = Bug(
    name="hugetlb-unshare-flush",
    title="A page of PMDs is unshared without a flush",
    kinds=("MF", "PF"),
    story="Two processes share a page of PMDs for a hugetlb file. CPU 0 (unmap, first process) gives up its "
    "use of it and does not flush. CPU 2 (unmap, second process) is the last user, and frees the "
    "pages and the page of PMDs. CPU 1, a thread of the first process, still gets there.",
    affected="v3.6 to v5.15",
    source="the backport of the commit; Nadav Amit on the CVE",
    fix="a4a118f2eead",
    cve="CVE-2021-4002",
    test=tests.UNSHARED_FLUSH,
    before="mistake:unshare-without-flush",
    left_out=f"{_ONE_LEVEL}; its entries stand for huge pages",
)

UNSHARE_GUP = Bug(
    name="hugetlb-unshare-gup-fast",
    title="get_user_pages_fast goes on in a page of PMDs that is another process' by now",
    kinds=("PF",),
    story="CPU 1 (get_user_pages_fast, interrupts off) walks a page of PMDs that two processes share. CPU 0 "
    "unshares it; for the other process it is an ordinary table from then on, and it maps other "
    "memory there. CPU 1 pins a page of that.",
    affected="v2.6.20 to v6.15",
    source="the CVE's record",
    fix="1013af4f585f",
    cve="CVE-2025-38085",
    test=tests.UNSHARED_GUP,
    before="mistake:unshare-without-sync",
    left_out=f"{_ONE_LEVEL}; its entries stand for huge pages",
)

TABLE_MOVE_UNLOCKED = Bug(
    name="mremap-table-unlocked",
    title="mremap moves a page table without the rmap lock",
    kinds=("FR", "PF"),
    story="CPU 1 (reclaim, through the rmap) has found the table at its old address. CPU 0 (mremap) moves "
    "the whole table to a new address, without the rmap lock; somebody uses a page there. CPU 1 clears "
    "the entry, flushes the old address and frees the page, which the TLB still has at the new one.",
    affected="v5.4 to v5.13",
    source="the record of CVE-2022-41222, and the commit that it names",
    fix="97113eb39fa7",
    cve="CVE-2022-41222",
    test=tests.MOVED_TABLE,
    before="mistake:table-moves-unlocked",
)

TABLE_MOVE_UNSEEN = Bug(
    name="mremap-table-retracted",
    title="mremap moves a page table that collapse has taken away",
    kinds=("PF",),
    story="CPU 0 (mremap) reads a PMD and decides to move the whole table. CPU 1 (MADV_COLLAPSE of the same "
    "file by another process) removes that table. CPU 0 takes the locks and installs an entry that is "
    "made of an empty PMD: walkers take the page of frame 0 for a table.",
    affected="v6.6 to v6.11",
    source="Jann Horn's patch of 7 October 2024 and its review",
    fix="6fa1066fc5d0",
    cve="CVE-2024-50066",
    test=tests.RETRACTED_TABLE,
    before="mistake:table-moves-unseen",
)
