"""What an operation is to the timed engine's loop: a small number, looked up by class and compared.

Up to `LAST_PRIVATE` they concern one CPU alone, up to `LAST_OF_MEMORY` they go to memory.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware import operations as ops
from emulator.hardware.operations import TABLE, Where

TOUCH, LOCAL, TRANSLATE, IRET, WALK, MEMORY, LOCK, SEND, ACK, WAIT, HALT, IDLE, BROADCAST = range(13)
LAST_PRIVATE: Final = IRET
LAST_OF_MEMORY: Final = LOCK

_SPECIAL: Final[dict[type[Any], int]] = {
    ops.Touch: TOUCH,
    ops.Translate: TRANSLATE,
    ops.Iret: IRET,
    ops.Walk: WALK,
    ops.Lock: LOCK,
    ops.SendIpi: SEND,
    ops.AckIpi: ACK,
    ops.WaitAcks: WAIT,
    ops.Halt: HALT,
    ops.Idle: IDLE,
    ops.Invlpgb: BROADCAST,
    ops.SendRar: BROADCAST,
    ops.Tlbi: BROADCAST,
}
_BY_PLACE: Final = {Where.CPU: LOCAL, Where.MEMORY: MEMORY}
CODES: Final = {
    kind: code
    for kind, row in TABLE.items()
    if (code := _SPECIAL.get(kind, _BY_PLACE.get(row.where))) is not None
}
