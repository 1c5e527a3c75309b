"""Versions of Linux, as far as they differ in what is flushed: each is values of `KernelParameters`.

A parameter's own default is what DEFAULT does. What all versions do alike is no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

DEFAULT: Final = "6.6"

VERSIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "6.1": {
        # v6.4, 0bff0aaea03e: x86 tries lock_vma_under_rcu first; for files since v6.6 and v6.7.
        "per_vma_locks": False,
        # v6.3, 7e12beb8ca2a: migrate_pages unmaps a batch, flushes once, then moves it.
        "migrate_batched": False,
        # v6.2, 0538a82c39e9: lru_note_cost counts what reclaim looked at in vain, not only what it wrote out.
        "rotation_costs": False,
        # v6.3 (David Hildenbrand: rely on vma->vm_page_prot in uffd_wp_range): what is given back of private
        # memory is writable at once, which asks for a flush.
        "uffd_gives_write_back": False,
        # v6.2 (Nadav Amit, David Hildenbrand): clean exclusive pages become writable at once, and huge ones.
        "mprotect_needs_dirty": True,
        # v6.1, 624a2c94f5b7: the entries that a PMD is split into are clean, their folio is dirty.
        "split_keeps_dirty": False,
        # ext4_punch_hole calls filemap_write_and_wait_range while a page is tagged dirty.
        "punch_hole_writes": True,
        # vma_policy_mof: shmem has a get_policy, and no policy of its own.
        "numa_scans_shmem": False,
    },
    "6.6": {},
    "6.12": {
        # v6.10: MADV_PAGEOUT ignores references instead of clearing them.
        "pageout_clears_young": False,
        # v6.10: change_pte_range leaves out what several map (folio_likely_mapped_shared), cached or not.
        "numa_hints_page_cache": True,
        # v6.10, bc2ff4cbc329: shrink_folio_list frees by folio_batch (PAGEVEC_SIZE), each after a flush.
        "reclaim_free_batch": 31,
        # v6.12, b1f202060afe: remap_page with RMP_USE_SHARED_ZEROPAGE.
        "split_maps_zeropage": True,
    },
    # As 6.12, and x86 as it has been since v6.14, with the fixes up to v6.18.
    "6.18": {
        "pageout_clears_young": False,
        "numa_hints_page_cache": True,
        "reclaim_free_batch": 31,
        # v6.14, 209954cbc7d0, 2815a56e4b72, 6db2526c1d69: mm_cpumask is updated lazily.
        "lazy_mm_cpumask": True,
    },
}
