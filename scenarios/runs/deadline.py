"""How long to go on trying: some seconds, or until Ctrl-C, which then ends the trying and not the program."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Self


class Deadline:
    """Comes after some time, or at Ctrl-C in the `with` block, which is not the program's end then."""

    def __init__(self, seconds: float) -> None:
        self.interrupted = False
        self._end = time.monotonic() + seconds

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def over(self) -> bool:
        """It is time to stop."""
        return self.interrupted or time.monotonic() > self._end
