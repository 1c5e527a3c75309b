"""What is known to differ from Linux, by cause. A case that is equal must not be named here."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

ALL: Final = ("k0", "s1", "s3", "l3", "mix")


class Difference(NamedTuple):
    """Cases that differ for one reason: operations (wildcards welcome), configurations, kernel versions.

    `pcid`: only in recordings with address-space numbers, or only in those without.
    """

    reason: str
    operations: tuple[str, ...]
    configurations: tuple[str, ...] = ALL
    kernels: tuple[str, ...] = ("6.1", "6.6", "6.12")
    pcid: bool | None = None


KNOWN: Final = (
    Difference(
        "the scanner leaves a single thread's local pages alone", ("numa_scan_*",), ("k0",), ("6.6", "6.12")
    ),
    Difference("the scanner of v6.1 marks nothing here", ("numa_scan_*",), kernels=("6.1",)),
    Difference("ext4 writes dirty pages out before it makes a hole", ("punch_dirty_*",), kernels=("6.1",)),
    # Three cases of recordings with address-space numbers that those without do not have.
    Difference("CPU 3 has caught up before it is woken", ("msync_8",), ("mix",), ("6.1",), True),
    Difference("ksmd's CPU had left the process before it began", ("ksm_8",), ("k0",), ("6.1",), True),
    Difference("the other process had not mapped the pages", ("move_shared_8",), ("s1",), ("6.1",), True),
)

NOT_MODELLED: Final = {
    "switch_*": "how often the scheduler switches among many processes is its own",
    "numa_scan_shared_tmpfs_*": "the scan is another thread's than that of CPU 0",
}
"""Operations without a program, and why."""


def reason_not_modelled(operation: str) -> str:
    """Why the operation has no program; empty if that is not known."""
    for name, reason in NOT_MODELLED.items():
        if fnmatchcase(operation, name):
            return reason
    return ""
