"""What is known to differ from Linux, by cause. A case that is equal must not be named here."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, NamedTuple

ALL: Final = ("k0", "s1", "s3", "l3", "mix")


class Difference(NamedTuple):
    """Cases that differ for one reason: operations (wildcards welcome), configurations, kernel versions."""

    reason: str
    operations: tuple[str, ...]
    configurations: tuple[str, ...] = ALL
    kernels: tuple[str, ...] = ("6.1", "6.6", "6.12")


KNOWN: Final = (
    Difference(
        "the scanner leaves a single thread's local pages alone", ("numa_scan_*",), ("k0",), ("6.6", "6.12")
    ),
    Difference("the scanner of v6.1 marks nothing here", ("numa_scan_*",), kernels=("6.1",)),
    Difference(
        "CPU 3 had caught up before its sleeper was woken; why is not known", ("msync_8",), ("mix",), ("6.1",)
    ),
    Difference("ksmd's CPU had left the process before it began", ("ksm_8",), ("k0",), ("6.1",)),
    Difference("the flushes for the other process are missing", ("move_shared_8",), ("s1",), ("6.1",)),
)

NOT_MODELLED: Final = {
    "uffd_*": "there is no userfaultfd",
    "ksm_*": "ksmd calls, in its own time, and not a thread of the process",
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
