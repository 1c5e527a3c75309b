"""What an operation is to the timed engine's loop: a small number, looked up by class and compared.

Up to `LAST_PRIVATE` they concern one CPU alone, up to `LAST_OF_MEMORY` they go to memory.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware.operations import (
    TABLE,
    AckIpi,
    Halt,
    Idle,
    Iret,
    Lock,
    SendIpi,
    Touch,
    Translate,
    WaitAcks,
    Walk,
    Where,
)

TOUCH, LOCAL, TRANSLATE, IRET, WALK, MEMORY, LOCK, SEND, ACK, WAIT, HALT, IDLE = range(12)
LAST_PRIVATE: Final = IRET
LAST_OF_MEMORY: Final = LOCK

_SPECIAL: Final[dict[type[Any], int]] = {
    Touch: TOUCH,
    Translate: TRANSLATE,
    Iret: IRET,
    Walk: WALK,
    Lock: LOCK,
    SendIpi: SEND,
    AckIpi: ACK,
    WaitAcks: WAIT,
    Halt: HALT,
    Idle: IDLE,
}
_BY_PLACE: Final = {Where.CPU: LOCAL, Where.MEMORY: MEMORY}
CODES: Final = {
    kind: code
    for kind, row in TABLE.items()
    if (code := _SPECIAL.get(kind, _BY_PLACE.get(row.where))) is not None
}
