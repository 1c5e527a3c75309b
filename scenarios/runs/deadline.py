"""How long to go on trying: some seconds, or until Ctrl-C, which then ends the trying and not the program."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class Deadline:
    """Comes after some time, or at Ctrl-C."""

    def __init__(self, seconds: float) -> None:
        self.interrupted = False
        self._end = time.monotonic() + seconds

    @classmethod
    @contextmanager
    def after(cls, seconds: float) -> Iterator[Self]:
        """One that Ctrl-C brings about during the block, instead of the program's end."""
        deadline = cls(seconds)
        before = signal.signal(signal.SIGINT, deadline._interrupt)
        try:
            yield deadline
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def over(self) -> bool:
        """It is time to stop."""
        return self.interrupted or time.monotonic() > self._end
