"""How a live run is run: plain, watched, recorded, and with which disturbances."""

from __future__ import annotations

from typing import NamedTuple


class Chaos(NamedTuple):
    """Disturbances of a run, and the seed they are drawn with. Chances are between 0 and 1, at every step.

    `late_interrupts`: a queued call is not looked at yet; `late_effects`: a windowed effect is not performed
    yet; `pauses`: the CPU stands still for up to `pause_us` microseconds; `walks`: the walker fetches a page.

    The rest says when a CPU stands still until all others stand still or wait for something. `order`: the
    CPUs start one after the other like that, the first at once. `stops`: (CPU, steps): so many steps into its
    run, the next time that it is about to do something that others may notice. `meetings`: (CPU,
    access, number): before the access of that number (`meetings.accesses_of`, the first is 1).
    """

    seed: int
    late_interrupts: float = 0.0
    late_effects: float = 0.0
    pauses: float = 0.0
    pause_us: int = 0
    walks: float = 0.0
    order: tuple[int, ...] = ()
    stops: tuple[tuple[int, int], ...] = ()
    meetings: tuple[tuple[int, str, int], ...] = ()


class Mode(NamedTuple):
    """How a machine is run. `watched`: everything is told to the memory actor, in one order, and judged by
    happens-before; `recorded`: that order is sent to the driver; `chaos`: disturbances, None for none;
    `most`: transitions after which a stressed run is taken to have no end, 0 for any number; `tolerant`: goes
    on without a CPU whose actor has died (not watched)."""

    watched: bool = False
    recorded: bool = False
    chaos: Chaos | None = None
    most: int = 0
    tolerant: bool = False
