"""Mainline Linux: one flush per unmap batch, performed before any folio of the batch is moved."""

from __future__ import annotations

from emulator.kernel.policy import Policy


class Immediate(Policy):
    """All hooks as they are: batching and lazy TLB belong to the kernel paths themselves."""

    name = "immediate"
    description = "mainline Linux: one flush per unmap batch, before any folio of it is moved"
