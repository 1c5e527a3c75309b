"""The strategies that can be named. Each is one small file that cites where it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from emulator.explore.strategies.delay_bounded import DelayBounded
from emulator.explore.strategies.pct import Pct
from emulator.explore.strategies.portfolio import Portfolio
from emulator.explore.strategies.random_walk import RandomWalk
from emulator.explore.strategies.strategy import Strategy
from emulator.explore.strategies.uniform import Uniform

__all__ = ["STRATEGIES", "Strategy", "UnknownStrategy", "find_strategy"]

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "random": RandomWalk,
    "pct": Pct,
    "uniform": Uniform,
    "delay": DelayBounded,
    "portfolio": Portfolio,
}

# Those that take a number, and the smallest and largest that makes sense.
_NUMBERED: dict[str, tuple[Callable[[int], Strategy], int, int]] = {
    "pct": (Pct, 1, 100),
    "delay": (DelayBounded, 0, 100),
}


class UnknownStrategy(Exception):
    """The name is no strategy; the message, one line, says what would be."""


def find_strategy(name: str) -> Callable[[], Strategy]:
    """The factory behind a name; `pct:3` is PCT of depth 3, `delay:2` at most 2 delays.

    Raises UnknownStrategy.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    base, colon, number = name.partition(":")
    if colon and base in _NUMBERED:
        make, least, most = _NUMBERED[base]
        if re.fullmatch("[0-9]{1,3}", number) and least <= int(number) <= most:
            return partial(make, int(number))
        raise UnknownStrategy(f"strategy {name}: the number has to be {least} to {most}")
    raise UnknownStrategy(
        f"no strategy named {name}; known are {', '.join(STRATEGIES)}, also pct:DEPTH and delay:BOUND"
    )
