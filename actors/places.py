"""What an operation is about: the place in memory where CPUs may meet, as text that can travel.

A stressed CPU may stand still where it is about to access a place that others access too: only there can
anybody tell who came first.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware import operations as ops
from emulator.hardware.cpu import TakeCalls
from emulator.hardware.operations import TABLE, Order

MOST_PLACES: Final = 256
"""Of a run that has more, a workload's, it is not said which."""

CALLS: Final = "calls"

_FORMS: Final[dict[str, tuple[type[Any], ...]]] = {
    "word {0.word}": (
        ops.Load, ops.Store, ops.AtomicAdd, ops.AtomicOr, ops.AtomicAnd, ops.AtomicXchg, ops.AtomicCmpxchg,
        ops.WaitFor, ops.WaitChange,
    ),
    "lock {0.name}": (ops.Lock, ops.Trylock, ops.Unlock),
    "pte {0.mm} {0.vpn}": (
        ops.GetPte, ops.SetPte, ops.XchgPte, ops.CmpxchgPte, ops.TryToMigratePte, ops.WaitPte,
        ops.TestAndClearYoung, ops.Walk,
    ),
    "areas {0.mm}": (
        ops.FindVma, ops.VmaInsert, ops.VmaRemove, ops.VmaProtect, ops.MappedRange, ops.PmdNone,
    ),
    "frame {0.pfn}": (ops.ReadFrame, ops.WriteFrame, ops.FolioZero),
    "frame {0.src}": (ops.FolioCopy,),
    "zone {0.node}": (ops.AllocPages, ops.NrFree),
    "references {0.pfn}": (
        ops.FolioGet, ops.FolioTryGet, ops.FolioPut, ops.FolioRefcount, ops.SplitHugePage,
    ),
    "flags {0.pfn}": (ops.FolioTestFlag, ops.FolioTestSetFlag, ops.FolioSetFlag, ops.FolioClearFlag),
    "list {0.name}": (ops.LlistAdd, ops.LlistDelAll, ops.LlistEmpty),
    "cache {0.file} {0.pgoff}": (ops.FilemapGet, ops.FilemapAdd),
    CALLS: (ops.SendIpi, TakeCalls),
}  # fmt: skip
_FORM: Final = {kind: form.format for form, kinds in _FORMS.items() for kind in kinds}
_READS: Final = frozenset(
    {kind for kind, row in TABLE.items() if row.order in (Order.LOAD, Order.WALK)} | {ops.FolioCopy}
)


def access_of(operation: Any) -> str:
    """`r` or `w` and the place; empty if it has none where CPUs meet."""
    form = _FORM.get(type(operation))
    if form is None:
        return ""
    return ("r " if type(operation) in _READS else "w ") + form(operation)


class Meetings:
    """Who accessed which place in one run, and how often."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._over = False

    def add(self, cpu: int, operation: Any) -> None:
        """CPU `cpu` has carried this out."""
        access = "" if self._over else access_of(operation)
        if access:
            cpus = self._counts.setdefault(access, {})
            cpus[cpu] = cpus.get(cpu, 0) + 1
            self._over = len(self._counts) > MOST_PLACES

    def contested(self) -> list[tuple[int, str, int]]:
        """(CPU, access, how often) for every place that several CPUs accessed and one of them wrote."""
        if self._over:
            return []
        places: dict[str, set[int]] = {}
        for access, cpus in self._counts.items():
            places.setdefault(access[2:], set()).update(cpus)
        return sorted(
            (cpu, access, count)
            for access, cpus in self._counts.items()
            if len(places[access[2:]]) > 1 and f"w {access[2:]}" in self._counts
            for cpu, count in cpus.items()
        )
