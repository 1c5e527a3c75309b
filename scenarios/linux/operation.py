"""What an operation is: a call, a program of the emulator that does what a system call does, on some memory.

A file of `operations/` that has a `Call` at its top adds it; nothing lists them again. A name says what is
called, before or behind it on which memory, and how many pages: munmap_tmpfs_8, thp_munmap, thp_munmap_part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import KINDS, MM, Area, Kind, Step, nothing

OTHERS: Final = Area(KINDS[""].area(1).start + 0x400, 32)
"""What `moved_then_` moves before."""

_NUMBER: Final = re.compile(r"(.+)_(\d{1,7})")
_MOVED: Final = "moved_then_"
_SPELT: Final = {
    "mprotect_file_ro": "mprotect_ro_dirty",
    "private_file_write": "write_private_clean",
    "shared_file_write": "write_clean",
    "shared_tmpfs_write": "write_tmpfs_clean",
    "reuse_after_fork": "write_reused",
    "move_shared": "move_elsewhere",
    "ksm": "ksm_mergeable",
    "ksm_write": "write_merged",
    "unmerge": "unmerge_merged",
    "thp_collapse": "collapse_small",
    "thp_cow_parent": "write_heads_thp_forked",
    "thp_mprotect_part": "thp_mprotect_ro_part",
    "numa_hint_sharedw": "numa_hint_write_tmpfs",
    "numa_scan_shared_tmpfs": "numa_scan_tmpfs",
    **{name: f"{name}_dirty" for name in ("msync", "msync_async", "fsync", "sync_range", "zero_range")},
    **{f"{_MOVED}{name}": f"{_MOVED}mprotect_{name}" for name in ("ro", "rw", "none")},
}
"""Names that are not made of a call and a kind of memory."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is called, and what CPU 0 does before, when all have touched the memory.

    The call is a task's of the same process, unless another mm is the `caller`. With `by_any` the scheduler
    says which of the threads that run makes it. With `alone` the others have ended
    before. `settings` are kernel parameters that the recording had.
    """

    name: str
    call: Step
    prepare: Step = nothing
    caller: int = MM
    by_any: bool = False
    alone: bool = False
    settings: tuple[tuple[str, Any], ...] = ()


class Found(NamedTuple):
    """An operation by its recorded name: what is called on what memory, the number in the name (1 if none
    is), and whether 32 other pages were moved before."""

    call: Call
    kind: Kind
    number: int
    moved: bool

    @property
    def area(self) -> Area:
        """All of the memory."""
        return self.kind.area(self.number)

    @property
    def settings(self) -> dict[str, Any]:
        """Kernel parameters."""
        return dict(self.kind.settings + self.call.settings)

    async def prepare(self, cpu: PerCpu) -> None:
        """On CPU 0, after all have touched the memory."""
        await self.kind.prepare(cpu, self.area)
        await self.call.prepare(cpu, self.kind.part(self.area))

    async def run(self, cpu: PerCpu) -> None:
        """What is counted."""
        await self.call.call(cpu, self.kind.part(self.area))


def find(name: str, known: Mapping[str, Call]) -> Found | None:
    """The program of a recorded operation, if there is one."""
    numbered = _NUMBER.fullmatch(name)
    base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    base = _SPELT.get(base, base)
    moved = base.startswith(_MOVED)
    made = _made_of(base.removeprefix(_MOVED), known)
    return Found(*made, number, moved) if made and number else None


def _made_of(name: str, known: Mapping[str, Call]) -> tuple[Call, Kind] | None:
    if name in known:
        return known[name], KINDS[""]
    words = name.split("_")
    if "" in words:
        return None
    for at in range(1, len(words)):
        first, second = "_".join(words[:at]), "_".join(words[at:])
        for call, kind in ((first, second), (second, first)):
            if call in known and kind in KINDS:
                return known[call], KINDS[kind]
    if words[0] == "thp":
        # thp_munmap_part
        for at in range(2, len(words)):
            kind = "_".join(["thp", *words[at:]])
            if (call := "_".join(words[1:at])) in known and kind in KINDS:
                return known[call], KINDS[kind]
    return None
