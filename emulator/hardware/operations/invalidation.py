"""Operations on the invalidation queue: one CPU's instruction or message drops entries of other CPUs' TLBs.

The instruction is over before they have dropped them; a second one waits for that. Each CPU's TLB does its
part by itself at some moment in between, whatever its program is at, but not in the middle of an access.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.operations.places import invalidations, reads, writes
from emulator.hardware.operations.table import Answer, Answers, Order, Price, Row, Where

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
    """The TLB of CPU `target` does what an Invlpgb or a payload of `sender` asks: pcid, mm, start, end,
    stride. Issued by the hardware itself"""

    sender: int
    target: int
