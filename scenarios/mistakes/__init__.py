"""Policies that are wrong on purpose: one mistake each, to see that some check catches it.

A class of these modules that has a name of its own, `mistake:...`, is one.
"""

from __future__ import annotations

from collections.abc import Callable

from emulator.kernel.policy import Policy
from scenarios.mistakes import (
    deadlocks,
    flushing,
    interrupts,
    kernel_paths,
    merged_mask,
    notes,
    requests,
)

_MODULES = (interrupts, kernel_paths, notes, requests, flushing, merged_mask, deadlocks)

MISTAKES: dict[str, Callable[[], Policy]] = {
    found.name: found
    for module in _MODULES
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Policy) and found.name.startswith("mistake:")
} | {"mistake:narrow-generation": notes.narrow_generation}
