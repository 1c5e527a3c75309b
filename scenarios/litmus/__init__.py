"""The catalogue of litmus tests: questions about TLB flushing that an explorer answers.

Each is a handful of steps on two to four CPUs, and says what to expect of each policy per architecture.
"""

from __future__ import annotations

from emulator.machine.litmus import Litmus
from scenarios.litmus import (
    barriers,
    deferral,
    dirty,
    fork,
    frugal,
    generations,
    hints,
    huge,
    lists,
    loading,
    mappings,
    moved_again,
    mprotect,
    orders,
    pageout,
    pressure,
    references,
    shootdown,
    switch,
    truncate,
    two_flushers,
    undo,
    write_faults,
)

_MODULES = (
    shootdown,
    deferral,
    barriers,
    generations,
    two_flushers,
    write_faults,
    moved_again,
    undo,
    dirty,
    mprotect,
    hints,
    huge,
    mappings,
    fork,
    pageout,
    truncate,
    references,
    switch,
    lists,
    pressure,
    orders,
    frugal,
    loading,
)

LITMUS: dict[str, Litmus] = {litmus.name: litmus for module in _MODULES for litmus in module.TESTS}
