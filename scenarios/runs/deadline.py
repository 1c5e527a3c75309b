"""How long to go on trying: some seconds, or until Ctrl-C, which then ends the trying and not the program."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Self


class Deadline:
    """Comes after some time, or at Ctrl-C in the `with` block, which is not the program's end then.

    Nor are these other signals, but for those that are ignored (SIGHUP under nohup).
    """

    def __init__(self, seconds: float, *others: signal.Signals) -> None:
        self.interrupted = False
        self.signal = 0
        self._signals = (signal.SIGINT, *[one for one in others if signal.getsignal(one) != signal.SIG_IGN])
        self._end = time.monotonic() + seconds

    def __enter__(self) -> Self:
        self._before = {one: signal.signal(one, self._interrupt) for one in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for one, theirs in self._before.items():
            signal.signal(one, theirs)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        self.signal = number

    def over(self) -> bool:
        """It is time to stop."""
        return self.interrupted or time.monotonic() > self._end
