"""Messages between actors as MessagePack: operations by their number in the table, everything else plain.

One message is one frame is one array. To the memory actor: the CPU, how many answers it waits for (-1: none,
0: only word that all is done), then number and fields of each operation. To a CPU: a kind, then what belongs
to it. Tuples arrive as tuples, so that operations stay hashable, and integers may have any size.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack

from emulator.hardware.operations import CLASSES

# In a watched run memory is told of everything that a CPU does, so some numbers mean no operation of memory.
LOCAL: Final = len(CLASSES)  # a count: so many steps that nobody else could notice
TOUCHED: Final = LOCAL + 1  # where a run of touches ended
BEGUN: Final = LOCAL + 2  # number and fields of a load whose value is asked for later
TAKE: Final = LOCAL + 3  # an interrupt: the calls that are queued
TRANSITION: Final = LOCAL + 4  # an Attempt of a stressed CPU
ASLEEP: Final = LOCAL + 5  # a Sleeper: the last that a stressed CPU sends before it waits for a message
# A stressed CPU stands still, and goes on when it gets an answer: its rank among those that do (0: none).
HOLD: Final = LOCAL + 6
AT_EASE: Final = LOCAL + 7  # the CPU is about to run user code, or idle, and owes nobody anything

# To a CPU.
ANSWER: Final = 0  # the answers waited for
BLOCKED: Final = 1  # the answers before the operation that is not enabled
RETRY: Final = 2  # number and fields of an operation that may be enabled now
IPI: Final = 3  # the fields of an IpiRequest
ACK: Final = 4  # request number, acknowledging CPU, ns that it has waited for a core since the call was sent
# Who asks, and what to drop in the TLB, as an Invalidate answers it; nothing where memory knows.
INVALIDATE: Final = 18
INVALIDATED: Final = 19  # that has been done
# To any actor, from the driver.
GO: Final = 5
STOP: Final = 6
WHERE: Final = 7  # say what you wait for
CUT: Final = 15  # as STOP, but before the run has come to its end
# A CPU has died. To memory: which; to the others also the arguments of takedown_cpu, for one of them.
UNPLUG: Final = 20
# To the driver; the second field is the actor's number, `MEMORY` for the memory actor.
READY: Final = 8
PROGRESS: Final = 9  # accesses so far
WAITS: Final = 10  # text
HALTED: Final = 11
FAILED: Final = 12  # CPU concerned, then the fields of a Fault
BLOCK: Final = 13  # a block of the recording
BROKEN: Final = 14  # a rule that ends the run, as the fields of a Violation
PULSE: Final = 17  # it is there, whatever it is at
# Whether the CPU can be unplugged, how many of its threads are through, mms.
UNPLUGGED: Final = 21
RESTED: Final = 16  # every CPU of a stressed run has ended, and nothing is under way any more

MEMORY: Final = -1
DRIVER: Final = -2  # in the place of a CPU number in a message to the memory actor

NO_ANSWER: Final = -1

_BIG_INTEGER: Final = 1


class Attempt(NamedTuple):
    """Any transition of a stressed CPU, with the operation by number and fields.

    `issued`: it only goes into the window. `cached`: what a walker has; None: nothing is asked of memory.
    """

    kind: int
    at: int
    number: int
    fields: tuple[Any, ...]
    issued: bool
    cached: int | None


class Sleeper(NamedTuple):
    """How many RETRY a CPU has had (-1: it is about to wake up), whether it would take a call, and what it
    waits for; no text if its program is over."""

    retries: int
    interruptible: bool
    text: str


# MessagePack has 64-bit integers; a mask that clears the bit of CPU 63 needs one more.


def _pack_rest(value: Any) -> Any:
    if isinstance(value, int):
        return msgpack.ExtType(_BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, array):
        # Accesses that were drawn in compiled code.
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot travel between actors: {value!r:.80}")


def _unpack_rest(code: int, data: bytes) -> Any:
    if code != _BIG_INTEGER:
        raise ValueError(f"unknown MessagePack extension {code}")
    return int.from_bytes(data, "big", signed=True)


def make_packer() -> Callable[[Any], bytes]:
    """A function that encodes one message. Each thread needs its own: it keeps its buffer."""
    pack: Callable[[Any], bytes] = msgpack.Packer(default=_pack_rest).pack
    return pack


def unpack(frame: bytes | memoryview) -> Any:
    """Decode one message."""
    return msgpack.unpackb(frame, use_list=False, strict_map_key=False, ext_hook=_unpack_rest)
