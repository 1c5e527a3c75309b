"""What an operation is: a program of the emulator that does what one recorded system call does.

A file of `operations/` that has an `Operation` at its top adds it; nothing lists them again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, anonymous, nothing, write_pages

Step = Callable[[PerCpu, int], Awaitable[None]]
"""A part of a program, told the CPU that runs it and the number of pages in the operation's name."""

_PAGES: Final = re.compile(r"(.+)_(\d{1,7})")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. With `name` munmap_N it stands for munmap_8 and any other number of pages.

    CPU 0 runs `set_up`, then each other thread `touch` on its CPU, then CPU 0 `prepare`. From there on the
    others spin or sleep, and CPU 0 runs, between the markers, `call`. That is a task of the same process,
    unless another mm is the `caller`. `elsewhere` is what a process of its own runs on CPU 3 before it spins
    there. `settings` are kernel parameters that the recording had, such as huge pages.
    """

    name: str
    call: Step
    set_up: Step = anonymous
    touch: Step = write_pages
    prepare: Step = nothing
    elsewhere: Step | None = None
    caller: int = MM
    settings: tuple[tuple[str, Any], ...] = ()


class Found(NamedTuple):
    """An operation by its recorded name: the program, and the number of pages in the name (1 if none is)."""

    operation: Operation
    pages: int


def find(name: str, known: dict[str, Operation]) -> Found | None:
    """The program of a recorded operation, if there is one."""
    if name in known:
        return Found(known[name], 1)
    numbered = _PAGES.fullmatch(name)
    if numbered and (operation := known.get(f"{numbered[1]}_N")) and int(numbered[2]):
        return Found(operation, int(numbered[2]))
    return None
