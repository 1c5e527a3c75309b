"""Operations on the invalidation queue: one CPU's instruction or message drops entries of other CPUs' TLBs.

The instruction is over before they have dropped them; a second one waits for that. Each CPU's TLB does its
part by itself at some moment in between, whatever its program is at, but not in the middle of an access.
INVLPGB and TLBSYNC are x86's, TLBI and DSB arm64's.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.operations.places import (
    Touches,
    any_invalidations,
    entry_if_updated,
    entry_word,
    invalidations,
    nowhere,
    reads,
    writes,
)
from emulator.hardware.operations.table import Alone, Answer, Answers, Order, Price, Row, Where

_ALONE_HERE = nowhere("it concerns this CPU alone")
ALL_NONGLOBALS: Final = -1
EVERYTHING: Final = -2
"""In the place of a PCID: all of them, without global entries and with them."""


@Row(
    Where.MEMORY,
    Order.BROADCAST,
    writes(invalidations),
    Price.BROADCAST,
    waits=invalidations,
    notation="broadcasts an invalidation of PCID {0.pcid}",
)
class Invlpgb(Answers[None]):
    """INVLPGB by CPU `sender`: the CPUs of `mask` will drop pages [start, end), one of every `stride`, all if
    `end` is -1, of `pcid`, which is that of address space `mm`. Not enabled while they have not all dropped
    what the sender has asked before"""

    sender: int
    mask: int
    pcid: int
    mm: int
    start: int
    end: int
    stride: int


@Row(
    Where.MEMORY,
    Order.MB,
    writes(invalidations),
    Price.BROADCAST,
    notation="payload {0.sender}: PCID {0.pcid}",
)
class SetPayload(Answers[None]):
    """Intel RAR: write payload `sender` of the table, of pages [start, end), one of every `stride`, all if
    `end` is -1, of `pcid`, which is that of address space `mm`. Whoever still has to act on that payload
    finds this one"""

    sender: int
    pcid: int
    mm: int
    start: int
    end: int
    stride: int


@Row(
    Where.MEMORY,
    Order.MB,
    writes(invalidations),
    Price.BROADCAST,
    notation="has CPUs {0.mask:#b} act on payload {0.sender}",
)
class SendRar(Answers[None]):
    """Intel RAR: payload `sender` is pending in the action vectors of the CPUs of `mask`, which are told"""

    sender: int
    mask: int


@Row(
    Where.MEMORY,
    Order.MB,
    reads(invalidations),
    Price.TLBSYNC,
    waits=invalidations,
    notation="has all invalidations of CPU {0.sender} done",
)
class Tlbsync(Answers[None]):
    """TLBSYNC on CPU `sender`, or looking whether payload `sender` is pending nowhere any more: not enabled
    before all have dropped what was asked; interruptible"""

    sender: int


@Row(
    Where.MEMORY,
    Order.BROADCAST,
    writes(invalidations),
    Price.PAID,
    Answer.VALUE,
    waits=invalidations,
    notation="its TLB drops what CPU {0.sender} asks",
)
class Invalidate(Answers[tuple[int, ...]]):
    """The TLB of CPU `target` does what an Invlpgb or a payload of `sender` asks, or the oldest of its Tlbis
    that it has not done: pcid, mm, start, end, stride, and of a Tlbi last_level. Issued by the hardware
    itself"""

    sender: int
    target: int


@Row(
    Where.MEMORY,
    Order.BROADCAST,
    writes(invalidations),
    Price.TLBI,
    notation="TLBI of ASID {0.pcid}",
)
class Tlbi(Answers[None]):
    """TLBI by CPU `sender`: as Invlpgb, but several may be under way. `mask` is all CPUs (Inner Shareable) or
    the sender alone. With `last_level` (VALE1, VAALE1) what walkers have cached of tables above stays.

    Neither stores before it nor the accesses after it are ordered by it (Arm ARM, D8.16: a DSB before and
    one after)"""

    sender: int
    mask: int
    pcid: int
    mm: int
    start: int
    end: int
    stride: int
    last_level: bool


@Row(
    Where.MEMORY,
    Order.MB,
    reads(invalidations),
    Price.DSB,
    waits=invalidations,
    notation="DSB of CPU {0.sender}",
)
class Dsb(Answers[None]):
    """DSB ISH by CPU `sender`, or DSB NSH if `mask` is that CPU alone: a full barrier, not enabled before the
    CPUs of `mask` have dropped what the sender's own TLBIs ask and made the accesses translated before.

    Those of other CPUs it does not complete (Arm ARM, D8.16.5)"""

    sender: int
    mask: int


@Row(Where.CPU, Order.DSB_ST, _ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class DsbIshst(Answers[None]):
    """DSB ISHST: stores before it have been performed, so that all walkers see them."""


@Row(Where.CPU, Order.NONE, _ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class Isb(Answers[None]):
    """ISB, a context synchronization event. No instruction is fetched or translated ahead of its turn here,
    so that nothing has to be thrown away; what a TLB holds it leaves."""


@Row(
    Where.MEMORY,
    Order.BROADCAST,
    writes(invalidations),
    Price.PAID,
    Answer.VALUE,
    waits=invalidations,
    notation="its TLB does the TLBI of CPU {0.sender}",
)
class InvalidateEntries(Answers[tuple[int, ...]]):
    """Invalidate, unless it concerns a page that an access of the target has been translated by and is not
    performed (`busy`: page numbers)"""

    sender: int
    target: int
    busy: tuple[int, ...]


UPDATES: Final = -1
TOUCHES: Final = -2
UNTAKEN: Final = -1


@Row(
    Where.MEMORY,
    Order.WALK,
    reads(entry_word),
    Price.ENTRY,
    Answer.VALUE,
    waits=entry_word,
    touches=Touches(reads=(entry_word, any_invalidations), writes=(entry_if_updated,)),
    notation="translates by {0.word}: {1:#x}",
)
class TakeTranslation(Answers[int]):
    """One of the output addresses that the descriptor `word` gives to such an access (`flags`, of
    `hardware/descriptors.py`): by what memory holds or by what the CPU's TLB may hold, the `number`-th in
    ascending order. With `UPDATES` the CPU sets bits of what memory holds first, as one step with the walk;
    with `TOUCHES` it only sets the access flag, as it may whenever it likes, and answers UNTAKEN. Of one
    that faults there is one, 0. Not enabled if there is none of that number"""

    word: str
    number: int
    flags: int
