"""How this process ends once Ray is lost: without Ray, which would wait for ever, or crash."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final, NoReturn

_lost: Final[list[str]] = []


def give_up(what: str) -> None:
    """From now on this process ends without `what`."""
    _lost.append(what)


def leave(code: int) -> NoReturn:
    """Exit with `code`, in order if nothing was given up."""
    if not _lost:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
