"""What signals do: end the program in order, later if something is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

TERMINATIONS: Final = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came: the program ends, cleaning up. No program's own SystemExit."""


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """`handler` for these signals during the block, but for those that are ignored (SIGHUP under nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, theirs in before.items():
            signal.signal(number, theirs)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP during the block; they have their effect right after it.

    Whoever sends a second one does not want to wait: that has its effect at once.
    """
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(128 + number)

    try:
        with _handled(catch, signal.SIGINT, *TERMINATIONS):
            yield
    finally:
        if len(caught) == 1:
            signal.raise_signal(caught[0])


def unwind() -> contextlib.AbstractContextManager[None]:
    """In the block SIGTERM and SIGHUP raise Terminated, so that it cleans up as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    return _handled(end, *TERMINATIONS)
