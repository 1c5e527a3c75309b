"""The compiled side of one timed run: its CPUs' TLBs, and those of them that make user accesses just now.

A CPU is handed over with its clock when it begins to touch (`begin`); `go` lets all of these go on in the
order of time, until one has come to something that is done in Python.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Final

from emulator.hardware.pte import ACCESSED, PRESENT, PSE
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import Tlb, TlbShape, TouchPrice

NONE: Final = (1 << 64) - 1
"""No CPU of these is the first."""
NEVER: Final = 1 << 62
"""A time in ns that does not come here, and a key that comes after all others."""

# Numbers that touches.c knows, and words of its struct cpu and of `shared`.
_AWAY, _TOUCHING, _ENDED, INTERRUPTED = range(4)
_CLOCK, _ARRIVAL, _AT, _WALKS, _REFILLS = 1, 3, 4, 9, 10
_HANDED_OVER: Final = Struct("<8Q")  # state, clock, fraction, arrival, at, stop, pcid, mm
_STOPPED: Final = Struct("<4Q")  # clock, fraction, arrival, at
_WALKS_HERE, _FRONT, _REASON = range(3)
_WORD: Final = 8
_MOST_WAYS: Final = 256
_TABLE_SHIFT, _MM_SHIFT, _MM_BITS = 9, 42, 22


def fits(shape: TlbShape, tlbs: Sequence[Tlb]) -> bool:
    """Whether these can be compiled ones instead: all of one kind of ours, empty, and of such a shape."""
    (kind, *others) = {type(tlb) for tlb in tlbs}
    sets = shape.l1_entries // shape.l1_ways, shape.l2_entries // shape.l2_ways
    return (
        kind in (Tlb, CountingTlb)
        and not others
        and sets[0] <= sets[1]
        and max(shape.l1_ways, shape.l2_ways) <= _MOST_WAYS
        and not any(map(len, tlbs))
    )


class Touches:
    """`cpus` CPUs, nobody touching yet. `ahead`: ns that hits may be ahead of the others, -1 for none.
    `lost`: what full flushes drop is kept, as a `CountingTlb` does.

    ImportError where there is no `wasmtime`.
    """

    def __init__(
        self,
        cpus: int,
        shape: TlbShape,
        pmd_order: int,
        price: TouchPrice,
        walk_ns: int,
        ahead: int,
        lost: bool,
    ) -> None:
        # Imported where it is needed: most commands touch nothing.
        from emulator.machine.webassembly import Compiled

        self.compiled = compiled = Compiled(__package__, "touches.wasm")
        l1_sets, l2_sets = shape.l1_entries // shape.l1_ways, shape.l2_entries // shape.l2_ways
        first = compiled.call("make", cpus, l1_sets, shape.l1_ways, l2_sets, shape.l2_ways, pmd_order, lost)
        compiled.call("prices", *price, walk_ns, ahead)
        size = compiled.call("size")
        self._structs = [first + number * size for number in range(cpus)]
        self._bytes = compiled.words.cast("B")
        self._shared = compiled.call("shared_at") // _WORD
        self._limit, self._go = compiled.quick("go", 0)
        self._rooms = [0] * cpus
        self._buffers = [0] * cpus
        self._loaded: list[Sequence[int]] = [()] * cpus
        self._tables: dict[int, int] = {}

    # --- accesses ------------------------------------------------------------------------------

    def begin(
        self,
        number: int,
        when: tuple[int, int, int],
        accesses: Sequence[int],
        start: int,
        stop: int,
        pcid: int,
        mm: int,
    ) -> None:
        """CPU `number` touches `accesses[start:stop]`. `when`: its clock in ns, ps beyond that, and when its
        interrupt arrives, if one is on its way."""
        if stop > len(accesses):
            raise IndexError(f"accesses {start} to {stop} of {len(accesses)}")
        if not start or self._loaded[number] is not accesses:
            self.load(number, accesses)
        at = self._structs[number]
        clock, fraction, arrival = when
        arrival = min(arrival, NEVER)
        _HANDED_OVER.pack_into(self._bytes, at, _TOUCHING, clock, fraction, arrival, start, stop, pcid, mm)

    def load(self, number: int, accesses: Sequence[int]) -> None:
        """Copy the accesses to where CPU `number` finds them."""
        words = accesses if type(accesses) is array and accesses.typecode == "Q" else array("Q", accesses)
        if len(words) > self._rooms[number]:
            self._rooms[number] = len(words)
            self._buffers[number] = self.compiled.call("room", number, len(words))
        at = self._buffers[number]
        self._bytes[at : at + _WORD * len(words)] = memoryview(words).cast("B")
        self._loaded[number] = accesses

    def interrupt(self, number: int, arrival: int) -> None:
        """An interrupt of CPU `number` arrives then, in ns."""
        self.compiled.words[self._structs[number] // _WORD + _ARRIVAL] = arrival

    def go(self, limit: int) -> tuple[int, int]:
        """The CPU that has to go on in Python now, and the smallest key of the others. Once whoever has the
        key `limit` (clock << 12 | number) is the first it is `NONE`."""
        self._limit[0] = limit
        self._go()
        if self.compiled.trap[0]:
            raise RuntimeError("the compiled accesses have gone wrong")
        return self._limit[0], self.compiled.words[self._shared + _FRONT]

    def stopped(self, number: int) -> tuple[int, int, int, int]:
        """Of the CPU that `go` answered: clock, fraction, index of its next access, and why it stopped."""
        clock, fraction, _, at = _STOPPED.unpack_from(self._bytes, self._structs[number] + _WORD * _CLOCK)
        return clock, fraction, at, self.compiled.words[self._shared + _REASON]

    def touch(
        self, number: int, pcid: int, accesses: Sequence[int], start: int, stop: int, budget: int
    ) -> tuple[int, int]:
        """As `Tlb.touch_for`, of a CPU that has not begun."""
        self.begin(number, (0, 0, NEVER), accesses, start, stop, pcid, 0)
        at = self._structs[number] // _WORD
        self.compiled.words[at] = _AWAY
        spent = self.compiled.call("tlb_touch", number, budget)
        return self.compiled.words[at + _AT], spent

    def ways(self, number: int, second: bool, count: int) -> list[tuple[int, int]]:
        """Keys and entries of a level of its TLB, the newest of each set first; an empty one's key is all
        ones."""
        at = self.compiled.call("tlb_level", number, second) // _WORD
        words = self.compiled.words[at : at + 2 * count].tolist()
        return list(zip(words[::2], words[1::2], strict=True))

    # --- walks ---------------------------------------------------------------------------------

    def walk_here(self, walk: bool) -> None:
        """Whether reads that miss are walked for here, where the entry is known and need not change."""
        self.compiled.words[self._shared + _WALKS_HERE] = walk

    def entry_is(self, mm: int, vpn: int, entry: int) -> None:
        """The page's entry has changed; 0 if it names no frame that is in use."""
        key = mm << _MM_SHIFT | vpn >> _TABLE_SHIFT
        walked = entry if entry & (PRESENT | ACCESSED | PSE) == PRESENT | ACCESSED else 0
        table = self._tables.get(key)
        if table is None:
            if not walked:
                return
            if mm >> _MM_BITS:
                raise ValueError(f"address space {mm}: there are at most {1 << _MM_BITS}")
            table = self._tables[key] = self.compiled.call("table", key) // _WORD
        self.compiled.words[table + (vpn & (1 << _TABLE_SHIFT) - 1)] = walked

    def counted(self, number: int) -> tuple[int, int]:
        """Walks and refills of CPU `number` so far."""
        at = self._structs[number] // _WORD
        return self.compiled.words[at + _WALKS], self.compiled.words[at + _REFILLS]
