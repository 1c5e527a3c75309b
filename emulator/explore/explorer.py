"""What a search needs of a machine: to start over, to ask what is possible, to let one thing happen.

Searching, replaying and shrinking know nothing else. `emulator.machine.referee` is the plain implementation,
`learned` the fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Kind, Transition


class Option(Protocol):
    """Something that can happen next. `agent` numbers who acts (`referee.agent_of`)."""

    @property
    def transition(self) -> Transition:
        """What would happen."""

    @property
    def agent(self) -> int:
        """Who would act."""


class Explorer(Protocol):
    """A machine in one state of one run.

    Searches ask it about a million times a second, so it has nothing that they do not need.
    """

    cpus: int

    @property
    def path(self) -> Sequence[Transition]:
        """What was taken so far in this run."""

    @property
    def violation(self) -> Violation | None:
        """The first rule that broke in it, None if none did."""

    def reset(self) -> None:
        """Begin a run: back to the start, with an empty path of its own and no violation."""

    def options(self, cpu: int = -1) -> Sequence[Option]:
        """Everything that can happen next, in a fixed order, an agent's options side by side.

        Empty at the end of a run. Of one CPU alone if it is given.
        """

    def take(self, option: Any) -> None:
        """Let one of this machine's own `options()` happen; may set `violation`."""

    def attempt(self, transition: Transition) -> Transition | None:
        """Let a transition happen whose schedule has been altered: what it has become, None if nothing.

        The entry of a window is the last that can be performed and stands no later.
        """

    def finish(self) -> None:
        """To be called when `options()` is empty: judges the end, may set `violation`."""


def nearest(options: Sequence[Option], transition: Transition) -> Option | None:
    """What a transition has become in an altered schedule, as `Explorer.attempt` has it."""
    kind, cpu, at = transition
    found = None
    for option in options:
        possible = option.transition
        if possible == transition:
            return option
        if kind is Kind.PERFORM and possible.kind is kind and possible.cpu == cpu and possible.at < at:
            found = option
    return found
