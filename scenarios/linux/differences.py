"""What is known to differ from Linux, by cause. A case that is equal must not be named here."""

from __future__ import annotations

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
        "the CPU's folio batch holds the pages still (prot_numa wants page_count 1 before v6.10)",
        ("numa_scan_[0-9]*",),
        ("s1", "l3"),
        ("6.1",),
        True,
    ),
    Difference(
        "the CPU's folio batch holds the last pages still", ("numa_scan_34",), ("l1", "l3"), ("6.1",), False
    ),
    # Cases of recordings with address-space numbers that those without do not have.
    Difference("CPU 3 has caught up before it is woken", ("msync_8",), ("mix",), ("6.1",), True),
    Difference("a seventh process ran on CPU 1 once", ("switch_6",), ("on1",), ("6.1",), True),
    Difference("ksmd's CPU had left the process before it began", ("ksm_8",), ("k0",), ("6.1",), True),
    Difference("the other process had not mapped the pages", ("move_shared_8",), ("s1",), ("6.1",), True),
)
