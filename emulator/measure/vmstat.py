"""The counters of a run, under the names of /proc/vmstat, each with the place where it ticks.

A comparison with a real kernel is only fair if both count at the same place, so the tick site is written
beside every name (Linux v6.4-6.6). Counting itself happens elsewhere; here are the names and the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

KERNEL_COUNTERS: Final[Mapping[str, str]] = {
    "nr_tlb_remote_flush": "once per flush call that targets another CPU (native_flush_tlb_multi)",
    "nr_tlb_remote_flush_received": "on each target at handler entry, before early returns (flush_tlb_func)",
    "nr_tlb_local_flush_all": "per whole flush on the initiator's own path (flush_tlb_func)",
    "nr_tlb_local_flush_one": "per page invalidated singly on the initiator's own path (flush_tlb_func)",
    "pgmigrate_success": "per page moved, for any reason (migrate_pages)",
    "pgmigrate_fail": "per page that could not be moved and stayed (migrate_pages)",
    "pgdemote_kswapd": "per page that kswapd moved to the slow tier (demote_folio_list)",
    "pgdemote_direct": "per page that direct reclaim moved to the slow tier (demote_folio_list)",
    "pgpromote_success": "per page that a hint fault moved to the fast tier (migrate_misplaced_folio)",
    "pgpromote_candidate": "per page that a hint fault found hot (numa_promotion_rate_limit)",
    "numa_pages_migrated": "per page that a hint fault moved to another node (migrate_misplaced_folio)",
    "numa_hint_faults": "per fault on a PROT_NONE entry (do_numa_page)",
    "numa_hint_faults_local": "those of them whose page is in the fast tier already",
    "numa_pte_updates": "per page whose entry the scanner made PROT_NONE (change_prot_numa)",
    "numa_huge_pte_updates": "per PMD among them (change_pmd_range)",
    "pgfault": "per page fault, hint and write faults included (handle_mm_fault)",
    "pgmajfault": "per page read into the page cache (filemap_fault)",
    "pgalloc_normal": "per page allocated, in either tier (get_page_from_freelist)",
    "allocstall_normal": "per allocation that had to reclaim by itself (try_to_free_pages)",
    "pgscan": "per inactive page looked at by reclaim (shrink_inactive_list)",
    "pgactivate": "per page found used and kept (shrink_folio_list)",
    "pgdeactivate": "per page moved to the inactive list (shrink_active_list)",
    "thp_fault_alloc": "per huge page that a fault mapped (do_huge_pmd_anonymous_page)",
    "thp_fault_fallback": "per fault that found no huge page and took a small one",
    "thp_collapse_alloc": "per huge page made of small ones (collapse_huge_page)",
    "thp_collapse_alloc_failed": "per collapse that found no huge page",
    "thp_migration_success": "per huge page moved as a whole (migrate_pages)",
    "thp_migration_fail": "per huge page that was not, one that was split included (migrate_pages)",
    "thp_migration_split": "per huge page split for want of a destination (migrate_pages)",
    "thp_split_page": "per huge page split (split_huge_page_to_list)",
    "thp_split_page_failed": "per huge page that could not be, as others use it (split_huge_page_to_list)",
    "thp_split_pmd": "per PMD that became a page table (__split_huge_pmd_locked)",
    "nr_written": "per dirty page that was written back (clear_page_dirty_for_io)",
    "nr_vmscan_write": "per dirty page that reclaim wrote out (pageout)",
    "pgsteal_file": "per page of a file that reclaim freed (shrink_folio_list)",
    "pglazyfree": "per page that MADV_FREE marked (folio_mark_lazyfree)",
    "pglazyfreed": "per such page that reclaim dropped (try_to_unmap_one)",
    "pswpout": "per page that was written to swap (swap_writepage)",
    "pswpin": "per page that was read from swap (swap_readpage)",
}
"""Counters that /proc/vmstat has, in the order of reports, each with the place where it ticks.

`pgscan` is the sum of what Linux counts as pgscan_kswapd and pgscan_direct.
"""

OWN_COUNTERS: Final[Mapping[str, str]] = {
    "migrc_deferred": "per folio whose flush was put off",
    "migrc_flushes": "per list of requests that was flushed",
    "migrc_skipped": "per CPU not interrupted for a request because it had flushed since",
    "migrc_write_faults": "per write fault on a folio under MIGRC, which gives up deferring",
    "migrc_given_up": "v9, LUF v10 and v11: per unmap that met a flush under way and was not put off",
    "luf_flushes": "per flush of what somebody owes that LUF makes (luf_flush)",
    "luf_takeoff_flushes": "per flush for a page that is about to be handed out (luf_takeoff_end)",
    "luf_refused": "per page that was not handed out where its flush may not be made (luf_takeoff_check)",
    "tlb_generation_done": "per gather that somebody else's flush has covered (tlb_flush of generations:...)",
    "tpp_activated": "per page of the slow tier that a hint fault makes active (do_numa_page of TPP)",
    "nomad_committed": "per page that Nomad promotes by a transaction",
    "nomad_aborted": "per transaction of Nomad that comes to nothing, the page having been written meanwhile",
    "nomad_shadows_released": "per shadow that goes, for a write or for memory (release_shadow_page)",
    "nomad_demoted_to_shadow": "per page that is demoted by mapping its shadow (demotion_unmap_and_move)",
    "luf_not_last": "per migrated page that somebody else still has, where LUF warns and frees it",
    "tlb_remote_flush_demotion": "those of nr_tlb_remote_flush that demoting a batch took",
    "tlb_remote_flush_promotion": "those that promoting a page took",
    "tlb_remote_flush_scan": "those that scans took, what others had put off included",
    "unmap_owed_writable": "per writable entry whose flush went to a batch (set_tlb_ubc_flush_pending)",
    "unmap_owed_dirty": "per dirty one without write permission",
    "unmap_owed_clean": "per clean one without write permission",
    "tlb_flush_on_task_switch": "per flush on switching address spaces (tracepoint tlb_flush, reason 0)",
    "kswapd_wakeups": "per wake-up of a sleeping kswapd",
    "numa_scans": "per scan of the NUMA balancer (task_numa_work)",
    "thp_wp_faults": "per write fault on a huge page (do_huge_pmd_wp_page)",
    "numa_writable": "per hint fault that gave the write permission back (do_numa_page)",
    "fork_migration_entries": "per migration entry that a fork had to copy (copy_nonpresent_pte)",
    "fork_copied": "per pinned page that a fork copied for the child (copy_present_page)",
    "ksm_pages_merged": "per page that came to share another's frame (try_to_merge_two_pages)",
    "mremap_moved_table": "per page table that mremap moved with all its entries (move_normal_pmd)",
    "hugetlb_unshared": "per shared page table that a process let go of (huge_pmd_unshare)",
    "tlb_remove_table_sync": "per wait for all who walk with interrupts off (tlb_remove_table_sync_one)",
    "kvm_preempted": "per time that a host took a virtual CPU away (kvm_arch_vcpu_put)",
    "pgcow": "per page copied on a write fault (wp_page_copy)",
    "allocation_failures": "per allocation that nothing could satisfy",
    "dtlb_walks": "per page walk, after a miss in both TLB levels or to set the dirty bit",
    "tlb_flushes_full": "per CR3 write that drops all entries of a PCID, on any CPU",
    "tlb_flushes_one": "per INVLPG, on any CPU",
    "tlb_entries_flushed_full": "per entry that a full flush dropped from its CPU's TLB",
    "tlb_refills_full": "per page walk that found again, unchanged, an entry that a full flush had dropped",
}
"""Counters that /proc/vmstat does not have, in the order of reports."""

COUNTERS: Final = (*KERNEL_COUNTERS, *OWN_COUNTERS)
"""Every counter, in the order of reports."""


def merge(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum the counters of several CPUs.

    Every known counter is in the result, zero where nobody ticked it; those that a user's own policy ticks
    follow by name.
    """
    total = dict.fromkeys(COUNTERS, 0)
    own: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            into = total if name in total else own
            into[name] = into.get(name, 0) + count
    return total | dict(sorted(own.items()))
