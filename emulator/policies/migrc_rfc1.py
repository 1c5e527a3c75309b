"""MIGRC as posted in RFC v1 (<20230804061850.21498-1-byungchul@sk.com>, linux-mm, August 2023).

As RFC v2 but for the order around a local flush: the generation is read with atomic_read and the barrier
after it is smp_mb__after_atomic, which promises something after an atomic read-modify-write only. On x86
that is no instruction; on riscv it is a full fence all the same. CPUs that have flushed since are skipped
already: the description of patch 2/2 says so (its point 3), and so does the author's answer to the review,
<20230807014229.GB69206@system.software.com>; RFC v2 only made the skip a patch of its own (3/6). A
migration that fails after marking is not undone.
"""

from __future__ import annotations

from emulator.hardware.operations import SmpMbAfterAtomic
from emulator.policies.migrc_rfc2 import MigrcRfc2


class MigrcRfc1(MigrcRfc2):
    """`migrc:rfc1`."""

    name = "migrc:rfc1"
    description = "as migrc:rfc2, with barriers around a local flush that promise less"

    async def barrier_before_flush(self) -> None:
        """smp_mb__after_atomic behind atomic_read(&migrc_gen)."""
        await SmpMbAfterAtomic()

    async def barrier_after_flush(self) -> None:
        """The same before the note is written."""
        await SmpMbAfterAtomic()
