"""Which cases are recorded: operations by name, and in which configurations.

What each does in the guest stands in `operations.c` and `areas.c`, what it does here in `scenarios/linux/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CONFIGURATIONS: Final = ("k0", "s1", "s3", "l3", "mix")
"""The other CPUs: none, one and three that spin, three that sleep, and one of each."""

_EACH: Final = (
    "nothing",
    *(f"munmap_{pages}" for pages in (1, 2, 8, 33, 34, 512, 600, 2048)),
    *("munmap_unpopulated_8", "munmap_tables_1", "munmap_tables_512", "munmap_zero_8"),
    *("munmap_file_clean_8", "munmap_file_dirty_8", "munmap_tmpfs_8"),
    *(f"mprotect_ro_{pages}" for pages in (1, 8, 33, 34, 100, 600)),
    *("mprotect_ro_unpop_8", "mprotect_ro_zero_8", "mprotect_file_ro_8"),
    *("mprotect_rw_1", "mprotect_rw_33", "mprotect_rw_100"),
    *("mprotect_none_1", "mprotect_none_34", "mprotect_back_1", "mprotect_back_34"),
    *("dontneed_1", "dontneed_8", "dontneed_33", "dontneed_600"),
    *("dontneed_zero_8", "dontneed_unpopulated_8", "dontneed_file_clean_8", "dontneed_file_dirty_8"),
    *("madv_free_8", "madv_free_34", "madv_cold_8", "madv_cold_34"),
    *("pageout_file_clean_8", "pageout_file_clean_40", "pageout_file_dirty_8"),
    *("mremap_1", "mremap_8", "mremap_100", "mmap_fixed_8", "mmap_fixed_100"),
    *("fork", "cow_parent_1", "cow_parent_8", "reuse_after_fork_8"),
    *("zero_write_8", "private_file_write_8", "shared_file_write_8", "shared_tmpfs_write_8"),
    *("move_1", "move_8", "move_32", "move_512", "move_600", "move_ro_32", "move_none_8"),
    *("move_remote_1", "move_remote_32", "move_shared_8", "mbind_32"),
    *(f"moved_then_{call}_8" for call in ("ro", "none", "munmap", "dontneed", "write")),
    *("thp_munmap", "thp_munmap_part", "thp_mprotect_ro", "thp_mprotect_part", "thp_dontneed"),
    *("thp_dontneed_part", "thp_move_1", "thp_move_3", "thp_cow_parent", "thp_collapse"),
    *("truncate_clean_8", "truncate_dirty_8", "truncate_tmpfs_8", "truncate_private_8"),
    *("punch_clean_8", "punch_dirty_8", "punch_tmpfs_8", "msync_1", "msync_8"),
    *("clear_young_8", "clear_refs_8", "uffd_wp_8", "uffd_wp_100", "uffd_unwp_8"),
    *("thread_exit", "exit_8"),
)

_FURTHER: Final = {
    "munmap": "sparse pmd pud two locked ro none forked merged private private_clean shared tables",
    "mprotect_ro": "sparse pmd pud two tmpfs tmpfs_clean shared clean private private_clean none forked",
    "mprotect_rw": "tmpfs dirty clean private forked zero",
    "mprotect_none": "ro tmpfs dirty zero",
    "mprotect_back": "zero dirty tmpfs",
    "mprotect_exec": "- ro dirty",
    "dontneed": "sparse pmd pud private private_clean tmpfs shared forked none tables",
    "madv_free": "zero sparse forked ro pmd none",
    "madv_cold": "clean dirty tmpfs forked zero pmd",
    "pageout": "- tmpfs forked private private_clean",
    "mlock": "- zero",
    "mremap": "sparse pmd dirty tmpfs forked none unpop zero tables",
    "mmap_fixed": "dirty pmd",
    "fork": "zero tmpfs private",
    "cow_parent": "private pmd zero",
    "move": "sparse pmd clean dirty tmpfs forked locked private",
    "mbind": "dirty sparse",
    "truncate_half": "clean dirty tmpfs private",
    "punch_half": "clean dirty tmpfs",
    "madv_remove": "tmpfs dirty shared",
    "msync": "clean tmpfs private",
    "clear_refs": "zero sparse dirty",
    "uffd_wp": "zero sparse pmd ro unpop forked",
    "swapped": "munmap dontneed ro",
}

_THREE: Final = (
    *(
        f"{call}_8" if kind == "-" else f"{call}_{kind}_8"
        for call, kinds in _FURTHER.items()
        for kind in kinds.split()
    ),
    *("munmap_pmd_600", "mprotect_ro_pmd_600", "munmap_file_dirty_600", "mremap_600", "punch_private_8"),
    "mprotect_ro_tables_8",
    *("dontneed_locked_8", "munlock_8", "populate_read_unpop_8", "populate_write_unpop_8"),
    *("populate_write_zero_8", "willneed_8", "mremap_dontunmap_8", "mremap_shrink_8", "mremap_move_shrink_8"),
    *("mremap_move_grow_8", "mremap_aligned_8", "mremap_aligned_tables_512", "mmap_none_8", "brk_shrink_8"),
    *("vfork_8", "cow_child_8", "cold_remote_8", "pageout_remote_clean_8", "zero_range_8"),
    *("msync_async_8", "fsync_8", "sync_range_8", "clear_young_dirty_8", "soft_dirty_write_8"),
    *("uffd_unregister_8", "moved_then_madv_free_8", "moved_then_madv_cold_8", "moved_then_mremap_8"),
    *("moved_then_rw_8", "swapout_8", "swapout_40", "swapin_8", "fork_thp"),
    *("thp_munmap_2", "thp_munmap_zero", "thp_munmap_unaligned_3", "thp_munmap_forked"),
    *("thp_mprotect_ro_3", "thp_mprotect_ro_zero", "thp_mprotect_ro_unaligned_3", "thp_mprotect_ro_forked"),
    *("thp_mprotect_rw", "thp_mprotect_rw_part", "thp_mprotect_none", "thp_mprotect_none_part"),
    *("thp_mprotect_back", "thp_dontneed_2", "thp_dontneed_zero", "thp_dontneed_unaligned_3"),
    *("write_thp_zero", "thp_madv_free", "thp_madv_free_part", "thp_madv_free_unaligned_3"),
    *("thp_madv_cold", "thp_madv_cold_part", "thp_pageout", "thp_mlock", "thp_mbind", "thp_mmap_fixed"),
    *("thp_mremap", "thp_mremap_aligned", "thp_mremap_part", "thp_clear_refs", "thp_uffd_wp"),
    *("mprotect_same_8", "mprotect_same_dirty_8", "thp_mprotect_same", "munmap_hole_68"),
    *("mmap_fixed_synced_dirty_8", "thp_madv_free_forked_part", "mlock_forked_8", "mmap_fixed_two_8"),
    *(f"{call}_{kind}_8" for call in ("pwrite", "truncate_inside") for kind in ("clean", "dirty", "tmpfs")),
    *("munmap_hole_8", "munmap_hole_dirty_8", "thp_mremap_mixed_2", "mremap_private_8", "mremap_locked_8"),
    *(f"thp_{call}_forked_part" for call in ("dontneed", "munmap", "mprotect_ro")),
    "mprotect_none_forked_8",
)

_BESIDE: Final = (
    *("mprotect_pkey_8", "thp_mprotect_pkey", "membarrier_8", "remap_file_pages_dirty_8"),
    *("remap_file_pages_tmpfs_8", "uffd_copy_unpop_8", "uffd_zeropage_unpop_8", "mem_write_8"),
    *(f"mem_write_{kind}_8" for kind in ("forked", "zero", "private_clean", "clean")),
    *("vmsplice_8", "vmsplice_forked_8", "swapped_write_8", "swapped_mremap_8", "swapped_off_8"),
    *(f"populate_write_{kind}_8" for kind in ("forked", "private_clean", "clean")),
    *("mlock_private_clean_8", "munmap_513", "mprotect_ro_512", "mprotect_ro_513", "dontneed_513"),
    *("munmap_pmd_34", "thp_mprotect_exec", "thp_mremap_dontunmap", "thp_mremap_shrink"),
    *("thp_munmap_hole_2", "thp_cow_child", "thp_munlock", "thp_mprotect_none_forked", "thp_mmap_none"),
    *("thp_mmap_fixed_part", "thp_uffd_wp_part", "thp_move_forked_1", "thp_dontneed_none"),
    *("mprotect_ro_merged_8", "dontneed_merged_8", "mremap_merged_8", "mremap_dontunmap_dirty_8"),
    *("mremap_dontunmap_forked_8", "uffd_wp_tmpfs_8"),
)

_TWO: Final = (
    *(f"{call}_elsewhere_8" for call in ("munmap", "pageout", "truncate", "punch")),
    *("munmap_merged_34", "madv_free_600", "dontneed_file_dirty_600", "truncate_dirty_600"),
    *("punch_clean_600", "msync_40", "mprotect_none_600", "uffd_wp_600"),
)

_ONLY: Final[dict[str, tuple[str, ...]]] = {
    **{name: ("k0", "s3", "mix") for name in _THREE},
    **{name: ("k0", "s1") for name in _TWO},
    **{name: ("k0", "s3") for name in _BESIDE},
    # Where several threads run, which of them scans is chance.
    **{
        name: ("k0", "l1", "l3")
        for name in ("numa_scan_8", "numa_scan_34", "numa_scan_ro_8", "numa_scan_tmpfs_8", "thp_numa_scan")
    },
    **{
        name: ("k0", "s1", "l3")
        for name in ("numa_hint_read_8", "numa_hint_write_8", "numa_hint_write_tmpfs_8", "thp_numa_hint_read")
    },
    **{name: ("k0", "s1", "l3", "mix") for name in ("ksm_8", "ksm_write_8", "unmerge_8")},
    **dict.fromkeys(("exit_forked_8", "exit_dirty_8"), ("k0",)),
    "exit_last_8": CONFIGURATIONS,
    "exit_last_dirty_8": ("s3", "mix"),
    **{f"switch_{processes}": ("on1",) for processes in (2, 3, 5, 6, 7, 8, 12)},
}

_AGAIN: Final = (
    *("munmap_8", "munmap_tables_1", "mprotect_ro_8", "dontneed_8", "move_8", "fork", "cow_parent_8"),
    *("thp_munmap_part", "truncate_clean_8"),
)
"""What is recorded in the other configurations as well."""

_FEWER: Final[dict[str, tuple[str, ...]]] = {
    "move_shared_8": ("k0", "s1"),
    "thread_exit": ("s1", "s3", "l3"),
    "exit_8": ("k0", "s1", "s3", "l1", "l3", "mix"),
}

OPERATIONS: Final = (*_EACH, *_ONLY)


def planned() -> Iterator[tuple[str, str]]:
    """Operation and configuration, in the order of recordings."""
    for operation in _EACH:
        for configuration in _FEWER.get(operation, CONFIGURATIONS):
            yield operation, configuration
    for operation, configurations in _ONLY.items():
        for configuration in configurations:
            yield operation, configuration
    for operation in _AGAIN:
        for configuration in ("s2", "l1", "l2", "o1", "o3"):
            yield operation, configuration
