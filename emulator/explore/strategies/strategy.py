"""What a strategy is: it chooses, of everything that can happen next, what does.

All chance comes from the generator that `begin` is given, so the same generator and the same earlier
runs make the same choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from emulator.explore.explorer import Explorer, Option
from emulator.hardware.cpu import Kind
from emulator.machine.referee import KINDS

WALKER = int(Kind.WALK)  # of an agent that is a walker: agent % KINDS == WALKER


class Strategy(Protocol):
    """Chooses who goes next, run after run. Its estimates of a run's length come from the runs it has led."""

    @property
    def name(self) -> str:
        """How `find_strategy` knows it."""

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run of this machine, always of the same one, begins; `random` is for its choices."""

    def choose(self, options: Sequence[Option]) -> Option:
        """One of the options; there is at least one."""


def one_of(random: Random, options: Sequence[Option], agent: int) -> Option:
    """Any of the agent's options; there is at least one."""
    own = [option for option in options if option.agent == agent]
    return own[0] if len(own) == 1 else own[int(random.random() * len(own))]


__all__ = ["KINDS", "WALKER", "Strategy", "one_of"]
