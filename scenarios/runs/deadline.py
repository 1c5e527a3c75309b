"""How long to go on trying: some seconds, or until Ctrl-C, which then ends the trying and not the program."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Patience:
    """Runs out after some time, or at Ctrl-C."""

    def __init__(self, seconds: float) -> None:
        self.interrupted = False
        self._deadline = time.monotonic() + seconds

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """What Ctrl-C does."""
        self.interrupted = True

    def over(self) -> bool:
        """It is time to stop."""
        return self.interrupted or time.monotonic() > self._deadline


@contextmanager
def patient(seconds: float) -> Iterator[Patience]:
    """Ctrl-C ends the patience rather than the program during the block."""
    patience = Patience(seconds)
    before = signal.signal(signal.SIGINT, patience.interrupt)
    try:
        yield patience
    finally:
        signal.signal(signal.SIGINT, before)
