"""What the timed engine's loop does with an operation, by class: looked up once at every step.

What can be known before the run is known here: who carries it out, which checks look at it, what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from emulator.checks.onlooker import observer_of
from emulator.hardware.operations.places import KeyOf
from emulator.memory.memory import Memory
from emulator.timed.codes import CODES, LOCK, MEMORY, WALK
from emulator.timed.pricing import Price
from emulator.timed.waiting import CHANGES


class Plan(NamedTuple):
    """`code` is one of `codes`; of an operation that goes to memory `execute` carries it out, `observers` are
    told, it takes `ns` and what `price` says, if it says anything, and `changes` names what others may wait
    for."""

    code: int
    execute: Callable[[int, Any], Any]
    observers: tuple[Callable[[int, Any, Any], None], ...]
    ns: int
    price: Price | None
    changes: KeyOf | None


def plans_of(
    memory: Memory,
    checks: Sequence[Any],
    local: dict[type[Any], int],
    prices: dict[type[Any], int | Price],
    walk: Price,
) -> dict[type[Any], Plan]:
    """Plans for all operations. `local`: ns of those of one CPU; `prices`: of memory's; `walk`: of a walk."""
    plans = {}
    for kind, code in CODES.items():
        price: int | Price = local.get(kind, 0)
        if code == WALK:
            price = walk
        elif code in (MEMORY, LOCK):
            price = prices.get(kind, 0)
        ns, asked = (price, None) if isinstance(price, int) else (0, price)
        observers = [found for check in checks if (found := observer_of(check, kind)) is not None]
        plans[kind] = Plan(code, memory.handler(kind), tuple(observers), ns, asked, CHANGES.get(kind))
    return plans
