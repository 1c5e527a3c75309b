"""Page descriptors of AArch64 (stage 1, level 3) and where addresses of a test of translations lie.

Arm ARM (DDI 0487) D8.3: the bits that decide whether an access is permitted. The one idea: the descriptor
of a page lies at a fixed distance from the page, so that nothing but an address is needed to walk.
"""

from __future__ import annotations

from typing import Final

VALID: Final = 1 << 0
EL0: Final = 1 << 6  # AP[1]: code at EL0 may access
READ_ONLY: Final = 1 << 7  # AP[2]: clean, as herd says it: db:0
AF: Final = 1 << 10
DBM: Final = 1 << 51
PAGE: Final = 1 << 16
"""Pages of tests are so large, and begin at its multiples; no two things of a test share one."""
PAGE_SHIFT: Final = 12  # of what a TLBI is told
OUTPUT: Final = (1 << 48) - PAGE
"""The bits of a descriptor that are the output address."""
PHYSICAL: Final = 1 << 36  # a page's own frame begins so far above it
DESCRIPTOR: Final = 1 << 44  # and its descriptor lies so far above it

HARDWARE_AF: Final = 1  # FEAT_HAFDBS: the CPU sets the access flag
HARDWARE_DIRTY: Final = 2  # and makes what is DBM writable
AT_EL0: Final = 4
WRITES: Final = 8  # the access needs the right to write
ETS2: Final = 16  # FEAT_ETS2: a translation that faults comes after what is older
NEVER: Final = 32  # the access is the one that faults, in the way through the program that was guessed
TRANSLATED: Final = 64  # it is translated at all: on, where any other flag is
BY_TRANSLATION: Final = 128  # with NEVER: by a fault of these kinds
BY_ACCESS_FLAG: Final = 256
BY_PERMISSION: Final = 512
FAULTS: Final = {"Translation": BY_TRANSLATION, "AccessFlag": BY_ACCESS_FLAG, "Permission": BY_PERMISSION}
"""Kinds of faults, as herd names them."""


def cacheable(entry: int) -> bool:
    """A TLB may hold it: it gives neither a translation fault nor an access flag fault."""
    return entry & (VALID | AF) == VALID | AF


def to_update(entry: int, flags: int) -> int:
    """What the CPU makes of the descriptor before it uses it for such an access; the same if nothing."""
    if not entry & VALID:
        return entry
    updated = entry
    if flags & HARDWARE_AF:
        updated |= AF
    if flags & HARDWARE_DIRTY and flags & WRITES and updated & AF and updated & DBM:
        updated &= ~READ_ONLY
    return updated


def fault(entry: int, flags: int) -> int:
    """The kind of fault that such an access has with it, 0 if it goes through."""
    if not entry & VALID:
        return BY_TRANSLATION
    if not entry & AF:
        return BY_ACCESS_FLAG
    denied = (flags & AT_EL0 and not entry & EL0) or (flags & WRITES and entry & READ_ONLY)
    return BY_PERMISSION if denied else 0
