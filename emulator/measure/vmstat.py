"""The counters of a run, under the names of /proc/vmstat, each with the place where it ticks.

A comparison with a real kernel is only fair if both count at the same place, so the tick site is written
beside every name (Linux v6.4-6.6). Counting itself happens elsewhere; here are the names and the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

NR_TLB_REMOTE_FLUSH: Final = "nr_tlb_remote_flush"
"""Once per flush call that targets another CPU (arch/x86/mm/tlb.c: native_flush_tlb_multi)."""

NR_TLB_REMOTE_FLUSH_RECEIVED: Final = "nr_tlb_remote_flush_received"
"""On each target at handler entry, before any early return (arch/x86/mm/tlb.c: flush_tlb_func)."""

NR_TLB_LOCAL_FLUSH_ALL: Final = "nr_tlb_local_flush_all"
"""Once per whole flush on the initiator's own, not remote, path (arch/x86/mm/tlb.c: flush_tlb_func)."""

NR_TLB_LOCAL_FLUSH_ONE: Final = "nr_tlb_local_flush_one"
"""Per page invalidated singly on the initiator's own path (arch/x86/mm/tlb.c: flush_tlb_func)."""

PGMIGRATE_SUCCESS: Final = "pgmigrate_success"
"""Per page moved, for any reason (mm/migrate.c: migrate_pages)."""

PGDEMOTE_KSWAPD: Final = "pgdemote_kswapd"
"""Per page that kswapd moved to the slow tier (mm/vmscan.c: demote_folio_list)."""

PGPROMOTE_SUCCESS: Final = "pgpromote_success"
"""Per page that a hint fault moved to the fast tier (mm/migrate.c: migrate_misplaced_page)."""

NUMA_PAGES_MIGRATED: Final = "numa_pages_migrated"
"""Per page that a hint fault moved to another node (mm/migrate.c: migrate_misplaced_page)."""

NUMA_HINT_FAULTS: Final = "numa_hint_faults"
"""Per page whose PROT_NONE hint faulted (mm/memory.c: numa_migrate_prep)."""

NUMA_PTE_UPDATES: Final = "numa_pte_updates"
"""Per entry that the scanner made PROT_NONE (mm/mempolicy.c: change_prot_numa)."""

PGMIGRATE_FAIL: Final = "pgmigrate_fail"
"""Per page that could not be moved and stayed (mm/migrate.c: migrate_pages)."""

PGFAULT: Final = "pgfault"
"""Per page fault, hint faults and write faults included (mm/memory.c: handle_mm_fault)."""

PGALLOC_NORMAL: Final = "pgalloc_normal"
"""Per page allocated, in either tier (mm/page_alloc.c: rmqueue)."""

PGFREE: Final = "pgfree"
"""Per page given back to its zone (mm/page_alloc.c: free_unref_page and __free_pages_ok)."""

ALLOCSTALL_NORMAL: Final = "allocstall_normal"
"""Per allocation that had to reclaim by itself (mm/vmscan.c: do_try_to_free_pages)."""

MIGRC_SKIPPED: Final = "migrc_skipped"
"""Per CPU that a deferred flush need not interrupt because it had flushed since. Not in Linux."""

DTLB_WALKS: Final = "dtlb_walks"
"""Per page walk, after a miss in both TLB levels. On hardware: dtlb_load_misses.miss_causes_a_walk."""

KERNEL_COUNTERS: Final = (
    NR_TLB_REMOTE_FLUSH,
    NR_TLB_REMOTE_FLUSH_RECEIVED,
    NR_TLB_LOCAL_FLUSH_ALL,
    NR_TLB_LOCAL_FLUSH_ONE,
    PGMIGRATE_SUCCESS,
    PGDEMOTE_KSWAPD,
    PGPROMOTE_SUCCESS,
    NUMA_PAGES_MIGRATED,
    NUMA_HINT_FAULTS,
    NUMA_PTE_UPDATES,
    PGMIGRATE_FAIL,
    PGFAULT,
    PGALLOC_NORMAL,
    PGFREE,
    ALLOCSTALL_NORMAL,
)
"""Counters that /proc/vmstat has, in the order of reports."""

OWN_COUNTERS: Final = (MIGRC_SKIPPED, DTLB_WALKS)
"""Counters that /proc/vmstat does not have, in the order of reports."""

COUNTERS: Final = KERNEL_COUNTERS + OWN_COUNTERS
"""Every counter, in the order of reports."""


def merge(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum the counters of several CPUs. Every counter is in the result, zero where nobody ticked it.

    Raises ValueError for a name that is not in `COUNTERS`: a misspelt counter must not vanish.
    """
    total = dict.fromkeys(COUNTERS, 0)
    for part in parts:
        for name, count in part.items():
            if name not in total:
                raise ValueError(f"{name!r} is no counter; known are {', '.join(COUNTERS)}")
            total[name] += count
    return total
