"""Which cases are recorded: operations by name, with the number of pages, in every configuration.

What each does in the guest stands in `operations.c`, what it does here in `scenarios/linux/operations/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

OPERATIONS: Final = (
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
    *(
        "moved_then_ro_8",
        "moved_then_none_8",
        "moved_then_munmap_8",
        "moved_then_dontneed_8",
        "moved_then_write_8",
    ),
    *("thp_munmap", "thp_munmap_part", "thp_mprotect_ro", "thp_mprotect_part", "thp_dontneed"),
    *("thp_dontneed_part", "thp_move_1", "thp_move_3", "thp_cow_parent", "thp_collapse"),
    *("truncate_clean_8", "truncate_dirty_8", "truncate_tmpfs_8", "truncate_private_8"),
    *("punch_clean_8", "punch_dirty_8", "punch_tmpfs_8", "msync_1", "msync_8"),
    *("clear_young_8", "clear_refs_8", "uffd_wp_8", "uffd_wp_100", "uffd_unwp_8"),
    *("thread_exit", "exit_8"),
)

ONLY: Final[dict[str, tuple[str, ...]]] = {
    "move_shared_8": ("k0", "s1"),
    "thread_exit": ("s1", "s3", "l3"),
    "exit_8": ("k0",),
}
"""Operations that make sense in some configurations only."""


CONFIGURATIONS: Final = ("k0", "s1", "s3", "l3", "mix")


def planned() -> Iterator[tuple[str, str]]:
    """Operation and configuration, in the order of recordings."""
    for operation in OPERATIONS:
        for configuration in ONLY.get(operation, CONFIGURATIONS):
            yield operation, configuration
