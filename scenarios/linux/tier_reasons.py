"""Ratios of the tiering program that are not near what was recorded, by version, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_WAITS: Final = (
    "while the tables are written each page that is demoted waits 1.0 to 1.5 ms for its flush, in the "
    "lookups 0.11 to 0.14 ms (QEMU 7.2 begins with its first CPU again whenever a timer is due), and 400 to "
    "900 pages go then; here one figure stands for both parts, 0.4 ms, and some 8,000 go"
)

REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "6.1": {"demotions per promotion": _WAITS, "pages scanned per demoted": _WAITS},
    "6.12": {
        "demotions per promotion": (
            "how many hot pages find room, and so are promoted, is a race between kswapd and the lookups; "
            "three runs of Linux differ by two times in it (0.17 to 0.35, 0.39 here). And those have 14 "
            "or 15 scans, ours 18: a thread that has scanned may not do so again for 32 times as long "
            "(task_numa_work: node_stamp += 32 * diff), which is 640 ms after 20 ms"
        ),
        "interrupts of the CPU with most": (
            "while the tables are written CPU 0 is interrupted alone, which makes 16 to 28 % of all that "
            "were recorded, 10 % here; of those of the lookups no CPU has more than a third, here or "
            "there"
        ),
    },
}
