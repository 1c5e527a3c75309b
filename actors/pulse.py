"""Word from an actor that it is there, whatever it is at: tells a stalled host from a program that hangs.

Sent by a thread of its own, so that a CPU which computes for ever still has a pulse, and a process that is
stopped, or whose link is cut, has none.
"""

from __future__ import annotations

import threading
from typing import Any, Final, Self

import zmq

from actors import wire
from actors.mailbox import Endpoint, Keys, connected

EVERY_S: Final = 1.0
LATE_S: Final = 4.0
"""A pulse that is later than this is missing, even on a busy machine."""

LOST_S: Final = 20.0
"""Who has had no pulse for so long is lost, whatever the others are at."""


class Pulse:
    """While in its block, the actor `number` tells `driver` every second that it is there."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], driver: Endpoint, number: int, keys: Keys
    ) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(context, driver, number, keys), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._over.set()

    def _beat(
        self, context: zmq.Context[zmq.Socket[bytes]], driver: Endpoint, number: int, keys: Keys
    ) -> None:
        word = wire.make_packer()((wire.PULSE, number))
        socket = None
        while not self._over.wait(EVERY_S):
            # A ZeroMQ socket belongs to one thread. Most runs are too short to need it.
            socket = socket or connected(context, driver, 0, keys)
            socket.send(word)
        if socket is not None:
            socket.close()
