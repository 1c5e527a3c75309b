"""A machine whose runs all begin with the same schedule: what can come after it is what is explored."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.checks.violation import Violation
from emulator.explore.explorer import Explorer
from emulator.explore.schedule import follow
from emulator.hardware.cpu import Transition


class Onward:
    """An explorer. `path` has the schedule that it begins with, too; a rule that breaks on it ends a run."""

    def __init__(self, explorer: Explorer, begins: Sequence[Transition]) -> None:
        self._explorer = explorer
        self._begins = begins
        self.cpus = explorer.cpus
        self.options = explorer.options
        self.take = explorer.take
        self.attempt = explorer.attempt
        self.finish = explorer.finish
        self.reset()

    def reset(self) -> None:
        """Go to where the schedule ends. ScheduleProblem if it is not possible."""
        follow(self._explorer, self._begins)

    @property
    def path(self) -> Sequence[Transition]:
        return self._explorer.path

    @property
    def violation(self) -> Violation | None:
        return self._explorer.violation
